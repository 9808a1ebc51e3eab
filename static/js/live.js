// Keeps what is marked data-live="<topics>" fresh: a websocket says which topic has changed, and the
// part that listens to `live:<topic>` fetches itself through HTMX. While the socket is away, all topics
// are asked for every few seconds; when it is back, the versions that we have say what was missed.
(() => {
  "use strict";
  const POLL_MS = 8000;
  const RETRY_MS_MAX = 30000;
  const FINAL_CODES = [4401, 4404]; // signed out, or no member any more
  const badge = document.getElementById("live-state");
  const known = {};
  let socket = null;
  let retryMs = 1000;

  function topics() {
    const found = new Set();
    for (const element of document.querySelectorAll("[data-live]")) {
      for (const topic of element.dataset.live.split(" ")) if (topic) found.add(topic);
    }
    return [...found];
  }
  function announce(topic) {
    const [head] = topic.split(":");
    document.body.dispatchEvent(new CustomEvent(`live:${head}`, { detail: { topic } }));
  }
  function say(text, level) {
    if (!badge || badge.textContent === text) return;
    badge.textContent = text;
    badge.className = `badge dot ${level}`;
  }
  function connect() {
    const source = badge?.dataset.socket;
    if (!source) return;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}${source}`);
    socket.addEventListener("open", () => {
      retryMs = 1000;
      const wanted = Object.fromEntries(topics().map((topic) => [topic, known[topic] ?? null]));
      socket.send(JSON.stringify({ watch: wanted }));
      say("live", "good");
    });
    socket.addEventListener("message", (event) => {
      for (const [topic, version] of Object.entries(JSON.parse(event.data).changed)) {
        // The first version of a topic is that of the page as it was sent, or a little younger.
        known[topic] = version;
        announce(topic);
      }
    });
    socket.addEventListener("close", (event) => {
      socket = null;
      if (FINAL_CODES.includes(event.code)) { say("not live: sign in again", "bad"); return; }
      say("reconnecting", "warn");
      setTimeout(connect, retryMs * (0.75 + Math.random() / 2));
      retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
    });
  }
  setInterval(() => {
    if (socket?.readyState !== WebSocket.OPEN && !document.hidden) topics().forEach(announce);
  }, POLL_MS);
  addEventListener("online", () => { if (!socket) connect(); });
  connect();
})();
