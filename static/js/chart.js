// Draws the charts of a page with uPlot: <div data-charts="<address of columns>"> around <div class="chart">
// with data-series, data-labels and data-unit. Colours are the style sheet's; live:metrics redraws.
(() => {
  "use strict";
  const HEIGHT = 240;
  const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]]; // told apart without colours too
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function bytes(value) {
    let at = 0;
    while (Math.abs(value) >= 1024 && at < UNITS.length - 1) { value /= 1024; at += 1; }
    return `${value >= 100 || at === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[at]}`;
  }
  const two = (number) => String(number).padStart(2, "0");
  function clock(at, increment) {
    const date = new Date(at * 1000);
    const day = `${two(date.getMonth() + 1)}-${two(date.getDate())}`;
    return increment >= 86400 ? day : `${two(date.getHours())}:${two(date.getMinutes())}`;
  }
  const plain = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toFixed(2))));

  function options(box) {
    const write = box.dataset.unit === "bytes" ? bytes : plain;
    const said = (value) => (value === null || value === undefined ? "–" : write(value));
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    return {
      width: Math.max(200, box.clientWidth),
      height: HEIGHT,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (u, low, high) => [0, high > 0 ? high * 1.1 : box.dataset.unit === "bytes" ? 1024 : 1] } },
      axes: [{ ...axis, values: (u, ticks, index, space, increment) => ticks.map((at) => clock(at, increment)) }, { ...axis, size: 72, values: (u, ticks) => ticks.map(said) }],
      series: [
        { label: "At", value: (u, at) => (at ? new Date(at * 1000).toLocaleString() : "–") },
        ...box.dataset.labels.split(",").map((label, index) => ({
          label, stroke: colour(`--series-${index + 1}`), width: 2, dash: DASHES[index],
          value: (u, value) => said(value), points: { show: false }, spanGaps: false,
        })),
      ],
    };
  }
  function summary(box, columns) {
    const parts = box.dataset.labels.split(",").map((label, index) => {
      const values = columns[index + 1].filter((value) => value !== null);
      const write = box.dataset.unit === "bytes" ? bytes : plain;
      return values.length ? `${label} ${write(values[values.length - 1])}, at most ${write(Math.max(...values))}` : `${label}: nothing`;
    });
    return `${box.dataset.title}: ${parts.join("; ")}`;
  }
  function draw(box, data) {
    const columns = [data.at, ...box.dataset.series.split(",").map((name) => data[name])];
    box.setAttribute("aria-label", summary(box, columns));
    if (box.plot) { box.plot.setData(columns); return; }
    box.plot = new window.uPlot(options(box), columns, box);
    box.dataset.drawn = "1";
  }
  async function load(group) {
    const answer = await fetch(group.dataset.charts, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer?.ok) return; // the next turn asks again; what is drawn stays
    const data = await answer.json();
    for (const box of group.querySelectorAll(".chart")) draw(box, data);
  }
  const groups = () => document.querySelectorAll("[data-charts]");
  function redraw() {
    for (const box of document.querySelectorAll(".chart")) {
      if (!box.plot) continue;
      const columns = box.plot.data;
      box.plot.destroy();
      box.plot = new window.uPlot(options(box), columns, box);
    }
  }
  document.body.addEventListener("live:metrics", () => groups().forEach(load));
  document.addEventListener("theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width === innerWidth) return;
    width = innerWidth;
    for (const box of document.querySelectorAll(".chart")) box.plot?.setSize({ width: Math.max(200, box.clientWidth), height: HEIGHT });
  });
  groups().forEach(load);
})();
