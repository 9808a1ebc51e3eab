// Signing in with a passkey: options from the server, the browser's own dialogue, the answer as JSON
// in a hidden field. Where a browser knows no passkeys the form stays hidden.
(() => {
  "use strict";
  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

  async function answer(address) {
    const asked = await fetch(address, { headers: { Accept: "application/json" } });
    if (!asked.ok) throw new Error("The server does not answer. Try again.");
    const options = (await asked.json()).request_options.publicKey;
    const publicKey = {
      ...options,
      challenge: bytes(options.challenge),
      allowCredentials: (options.allowCredentials || []).map((one) => ({ ...one, id: bytes(one.id) })),
    };
    const found = await navigator.credentials.get({ publicKey });
    const given = found.response;
    return {
      id: found.id,
      rawId: text(found.rawId),
      type: found.type,
      clientExtensionResults: found.getClientExtensionResults(),
      response: {
        authenticatorData: text(given.authenticatorData),
        clientDataJSON: text(given.clientDataJSON),
        signature: text(given.signature),
        userHandle: given.userHandle ? text(given.userHandle) : null,
      },
    };
  }

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    if (!window.PublicKeyCredential) continue;
    form.hidden = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const error = form.querySelector("[data-passkey-error]");
      error.hidden = true;
      try {
        form.elements.credential.value = JSON.stringify(await answer(form.action));
        form.submit();
      } catch (problem) {
        error.textContent = problem.name === "NotAllowedError" ? "No passkey was used." : problem.message;
        error.hidden = false;
      }
    });
  }
})();
