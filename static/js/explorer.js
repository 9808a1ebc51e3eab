// The SQL console in the browser: a draft that is never lost, running the selection, cancelling, and
// results as CSV. For the other explorers: what was chosen on a list comes into view. Everything
// that reaches the server goes through HTMX.
(() => {
  "use strict";
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if ("chosen" in event.target.dataset) {
      const title = event.target.closest("section").querySelector("h2");
      const { top } = title.getBoundingClientRect();
      if (top < 0 || top > innerHeight / 2) title.scrollIntoView({ block: "start" });
    }
  });
  const box = document.getElementById("sql");
  if (!box) return;
  const form = document.getElementById("sql-form");
  const text = document.getElementById("text");
  const cancel = box.querySelector("[data-cancel]");
  const place = `draft:${box.dataset.draft}`;

  // --- The draft: kept at every key stroke, per tenant and instance
  function keep() {
    try { localStorage.setItem(place, text.value); } catch { /* private mode: the page still has it */ }
  }
  try { text.value = localStorage.getItem(place) ?? ""; } catch { /* private mode */ }
  text.addEventListener("input", keep);

  function insert(statement) {
    text.value = text.value.trim() ? `${text.value.trimEnd()}\n\n${statement}` : statement;
    keep();
    text.focus();
    text.setSelectionRange(text.value.length - statement.length, text.value.length);
  }

  // --- Running and cancelling
  let runId = "";
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("htmx:configRequest", (event) => {
    if (event.target !== form) return;
    runId = crypto.randomUUID?.() ?? `run-${Date.now()}-${Math.floor(Math.random() * 1e9)}`;
    event.detail.parameters.set("run_id", runId);
    const chosen = text.value.slice(text.selectionStart, text.selectionEnd);
    if (chosen.trim() && document.activeElement === text) event.detail.parameters.set("text", chosen);
  });
  form.addEventListener("htmx:beforeRequest", (event) => { if (event.target === form) cancel.disabled = false; });
  form.addEventListener("htmx:afterRequest", (event) => { if (event.target === form) cancel.disabled = true; });
  cancel.addEventListener("click", () => {
    window.htmx.ajax("POST", location.pathname, { values: { do: "cancel", run_id: runId }, swap: "none", source: cancel });
  });

  // --- Where the error is, and CSV of what is shown
  document.body.addEventListener("htmx:afterSwap", (event) => {
    const at = Number(event.target.querySelector?.("[data-position]")?.dataset.position || 0);
    if (at > 0 && event.target.id === "results") { text.focus(); text.setSelectionRange(at - 1, at); }
  });
  const quoted = (value) => (/[",\r\n]/.test(value) || value === "" ? `"${value.replaceAll('"', '""')}"` : value);
  function csv(result) {
    const names = [...result.querySelectorAll("thead th")].map((cell) => quoted(cell.firstChild.textContent.trim()));
    const rows = [...result.querySelectorAll("tbody tr")].map((row) =>
      [...row.cells].map((cell) => ("null" in cell.dataset ? "" : quoted(cell.textContent))).join(","));
    return [names.join(","), ...rows].join("\r\n") + "\r\n";
  }
  document.addEventListener("click", (event) => {
    const statement = event.target.closest("[data-insert]")?.dataset.insert;
    if (statement) { insert(statement); return; }
    const button = event.target.closest("[data-csv]");
    if (!button) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv(button.closest("[data-result]"))], { type: "text/csv" }));
    link.download = `${box.dataset.draft.split("/")[1]}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
