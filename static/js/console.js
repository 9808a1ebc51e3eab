// What every page of the dashboard can do. Pages work without it: links, forms and dialogs' fallbacks
// are the server's. Markup asks for behaviour with data-* attributes, so that parts which HTMX swaps
// in need no wiring; what has state of its own is an Alpine component below.
(() => {
  "use strict";
  const root = document.documentElement;
  const $ = (selector, from = document) => from.querySelector(selector);

  // --- Theme: "system", "light" or "dark", in a cookie so that the server renders it at once
  function setTheme(wish) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `theme=${wish}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
    root.dataset.theme = wish;
    for (const button of document.querySelectorAll("[data-theme-set]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeSet === wish));
    }
    document.dispatchEvent(new CustomEvent("theme"));
  }

  // --- Toasts: said politely, errors at once; errors stay until they are dismissed
  const TOAST_MS = 7000;
  function toast(text, level = "info") {
    const box = $(level === "error" ? "#alerts" : "#toasts");
    const pattern = $("#toast-pattern");
    if (!box || !pattern) return;
    const item = pattern.content.firstElementChild.cloneNode(true);
    item.classList.add(level);
    $("p", item).textContent = text;
    box.append(item);
    if (level !== "error") setTimeout(() => item.remove(), TOAST_MS);
  }

  async function copy(button) {
    const source = button.dataset.copy || $(button.dataset.copyFrom)?.textContent || "";
    try {
      await navigator.clipboard.writeText(source);
    } catch {
      toast("The browser does not allow copying here. Select the text instead.", "error");
      return;
    }
    const label = $("[data-label]", button) || button;
    const before = label.textContent;
    label.textContent = "Copied";
    setTimeout(() => { label.textContent = before; }, 1500);
    toast("Copied");
  }

  // --- What a click asks for: the first row whose selector matches an ancestor
  const CLICKS = [
    ["[data-theme-set]", (e) => setTheme(e.dataset.themeSet)],
    ["[data-opens]", (e) => document.getElementById(e.dataset.opens)?.showModal()],
    ["[data-closes]", (e) => e.closest("dialog")?.close()],
    ["[data-copy], [data-copy-from]", copy],
    ["[data-dismiss]", (e) => e.closest(".toast")?.remove()],
    ["[data-side]", (e) => setSide(e.getAttribute("aria-expanded") !== "true")],
    ["[role=tab]", (e) => selectTab(e)],
  ];
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
    const side = $(".side.open");
    if (side && !side.contains(event.target) && !event.target.closest("[data-side]")) setSide(false);
    for (const [selector, act] of CLICKS) {
      const found = event.target.closest(selector);
      if (found) { act(found); return; }
    }
  });

  function setSide(isOpen) {
    $(".side")?.classList.toggle("open", isOpen);
    for (const button of document.querySelectorAll("[data-side]")) {
      button.setAttribute("aria-expanded", String(isOpen));
    }
    if (isOpen) $(".side a")?.focus();
  }

  // --- Tabs within a page: [role=tablist] of buttons with aria-controls
  function selectTab(tab) {
    for (const other of tab.closest("[role=tablist]").querySelectorAll("[role=tab]")) {
      const isChosen = other === tab;
      other.setAttribute("aria-selected", String(isChosen));
      other.tabIndex = isChosen ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !isChosen;
    }
    tab.focus();
  }
  function moveInTabs(event, tab) {
    const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
    const at = tabs.indexOf(tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return false;
    selectTab(tabs[(to + tabs.length) % tabs.length]);
    return true;
  }

  // --- Forms: typing a name to confirm, and no second submit while the first is under way
  document.addEventListener("input", (event) => {
    const wanted = event.target.dataset?.confirms;
    if (wanted === undefined) return;
    $("[data-confirmed]", event.target.form).disabled = event.target.value !== wanted;
  });
  document.addEventListener("submit", (event) => {
    if (event.target.dataset.sent) { event.preventDefault(); return; }
    if (event.target.method === "post" && !event.target.matches("[hx-post]")) {
      event.target.dataset.sent = "1";
    }
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
    if (event.target.id === "keys-on") setKeys(event.target.checked);
  });

  // --- Keys. Single letters can be switched off in the dialog of "?"
  let keysAreOn = true;
  function setKeys(isOn) {
    keysAreOn = isOn;
    try { localStorage.setItem("keys", isOn ? "on" : "off"); } catch { /* private mode */ }
  }
  let waitsForPlace = 0;
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (key === "Escape") {
      for (const menu of document.querySelectorAll("details.menu[open]")) {
        menu.open = false;
        $("summary", menu).focus();
      }
      if ($(".side.open")) { setSide(false); $("[data-side]")?.focus(); }
    }
    if (target.matches?.("[role=tab]") && moveInTabs(event, target)) { event.preventDefault(); return; }
    if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "k") {
      event.preventDefault();
      openPalette();
      return;
    }
    const writes = target.matches?.("input, textarea, select, [contenteditable]");
    if (!keysAreOn || writes || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (key === "/") { event.preventDefault(); openPalette(); }
    else if (key === "?") { event.preventDefault(); $("#keys")?.showModal(); }
    else if (key === "g") waitsForPlace = Date.now();
    else if (Date.now() - waitsForPlace < 1500) {
      const link = $(`.nav a[data-key="${CSS.escape(key)}"]`);
      waitsForPlace = 0;
      if (link) location.assign(link.href);
    }
  });
  function openPalette() {
    const dialog = $("#palette");
    if (!dialog || dialog.open) return;
    dialog.showModal();
    dialog.dispatchEvent(new CustomEvent("palette-open"));
  }

  // --- The palette: pages of the navigation at once, instances when they have been fetched
  const PALETTE_ROWS_MAX = 12;
  document.addEventListener("alpine:init", () => {
    window.Alpine.data("palette", () => ({
      wanted: "",
      at: 0,
      places: [],
      init() {
        this.places = [...document.querySelectorAll(".nav a")].map((link) => ({
          name: link.textContent.trim(), kind: "page", address: link.href,
        }));
        this.$root.addEventListener("palette-open", () => this.open());
      },
      async open() {
        this.wanted = "";
        this.at = 0;
        const source = this.$root.dataset.source;
        if (!source || this.isFetched) return;
        const answer = await fetch(source, { headers: { Accept: "application/json" } }).catch(() => null);
        if (!answer?.ok) return;
        this.isFetched = true;
        this.places = [...this.places, ...(await answer.json()).items];
      },
      isFetched: false,
      get rows() {
        const words = this.wanted.toLowerCase().split(/\s+/).filter(Boolean);
        const found = this.places.filter((place) => words.every((word) => place.name.toLowerCase().includes(word)));
        return found.slice(0, PALETTE_ROWS_MAX).map((place, index) => ({
          ...place, id: `palette-${index}`, index, selected: String(index === this.at),
        }));
      },
      get isEmpty() { return this.rows.length === 0; },
      get activeId() { return `palette-${this.at}`; },
      reset() { this.at = 0; },
      down() { this.at = Math.min(this.at + 1, this.rows.length - 1); },
      up() { this.at = Math.max(this.at - 1, 0); },
      go() { this.visit(this.rows[this.at]); },
      choose(event) { this.visit(this.rows[Number(event.currentTarget.dataset.index)]); },
      visit(place) { if (place) location.assign(place.address); },
    }));
  });

  // --- HTMX: refusals become toasts; a session that ended goes to sign-in
  document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.level));
  document.addEventListener("htmx:sendError", () => toast("The server does not answer. What you wrote is still here.", "error"));
  document.addEventListener("htmx:beforeSwap", (event) => {
    // 422 is a form with its errors, 403 and 404 are parts of a page that say so.
    if ([403, 404, 422].includes(event.detail.xhr.status)) {
      event.detail.shouldSwap = true;
      event.detail.isError = false;
    }
  });
  document.addEventListener("htmx:responseError", (event) => {
    const id = event.detail.xhr.getResponseHeader("X-Request-ID") || "";
    toast(`That failed (${event.detail.xhr.status}). Request id: ${id}`, "error");
  });

  // The script is deferred: the document is parsed by now.
  try { keysAreOn = localStorage.getItem("keys") !== "off"; } catch { /* private mode */ }
  if ($("#keys-on")) $("#keys-on").checked = keysAreOn;
  for (const zone of document.querySelectorAll("time[data-local]")) {
    zone.title = `${new Date(zone.dateTime).toLocaleString()} (your time)`;
  }
  document.body.dataset.ready = "1";
  window.weftkit = { toast, setTheme };
})();
