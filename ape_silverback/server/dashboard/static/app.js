// What the pages do themselves: the live log, charts, bulk selection and confirmation. What bots print is only ever
// text here: nodes are made with textContent, never from markup.
"use strict";

const MOST_LINES = 2000;

function startLog(box) {
  const state = { paused: false, waiting: [], source: null, pattern: null };
  const level = document.getElementById("log-level");
  const filter = document.getElementById("log-filter");
  const pause = document.getElementById("log-pause");
  const status = document.getElementById("log-status");
  const marked = new URLSearchParams(location.search).get("at");

  function shows(text) {
    return !state.pattern || state.pattern.test(text);
  }

  function add(entry) {
    const line = document.createElement("div");
    line.className = `line ${entry.level || ""}`;
    if (entry.timestamp) {
      const link = document.createElement("a");
      const address = new URL(location.href);
      address.searchParams.set("at", entry.timestamp);
      address.hash = "log";
      link.href = address;
      link.title = "Link to this line";
      link.textContent = new Date(entry.timestamp).toLocaleTimeString([], { hour12: false }) + " ";
      line.append(link);
      if (marked === entry.timestamp) line.classList.add("marked");
    }
    line.append((entry.level ? entry.level.padEnd(8) : "        ") + entry.message);
    line.hidden = !shows(line.textContent);
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.append(line);
    while (box.childElementCount > MOST_LINES) box.firstElementChild.remove();
    if (line.classList.contains("marked")) line.scrollIntoView({ block: "center" });
    else if (atEnd && !marked) box.scrollTop = box.scrollHeight;
  }

  function connect() {
    if (state.source) state.source.close();
    box.replaceChildren();
    const query = new URLSearchParams({ level: level.value });
    if (marked) query.set("at", marked);
    state.source = new EventSource(`${box.dataset.source}?${query}`);
    state.source.addEventListener("line", (event) => {
      const entry = JSON.parse(event.data);
      if (state.paused) {
        state.waiting.push(entry);
        if (state.waiting.length > MOST_LINES) state.waiting.shift();
        status.textContent = `Paused; ${state.waiting.length} new lines`;
      } else add(entry);
    });
    state.source.addEventListener("open", () => { status.textContent = "Live"; });
    state.source.addEventListener("error", () => { status.textContent = "Connection lost; trying again"; });
    state.source.addEventListener("removed", () => { state.source.close(); status.textContent = "The bot was removed"; });
  }

  level.addEventListener("change", connect);
  filter.addEventListener("input", () => {
    try {
      state.pattern = filter.value ? new RegExp(filter.value, "i") : null;
      filter.setAttribute("aria-invalid", "false");
      filter.title = "";
    } catch (error) {
      filter.setAttribute("aria-invalid", "true");
      filter.title = error.message;
      return;
    }
    for (const line of box.children) line.hidden = !shows(line.textContent);
  });
  pause.addEventListener("click", () => {
    state.paused = !state.paused;
    pause.setAttribute("aria-pressed", String(state.paused));
    pause.textContent = state.paused ? "Resume" : "Pause";
    if (!state.paused) {
      state.waiting.splice(0).forEach(add);
      status.textContent = "Live";
    } else status.textContent = "Paused";
  });
  connect();
}

async function drawCharts(place) {
  const answer = await fetch(place.dataset.source, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const charts = await answer.json();
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--pico-color").trim();
  const grid = style.getPropertyValue("--pico-muted-border-color").trim();
  const colour = style.getPropertyValue("--pico-primary").trim();
  place.replaceChildren();
  if (!charts.length) {
    place.textContent = "Nothing recorded yet.";
    return;
  }
  for (const chart of charts) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = chart.unit ? `${chart.title} (${chart.unit})` : chart.title;
    figure.append(caption);
    place.append(figure);
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const plot = new uPlot({
      width: figure.clientWidth || 320, height: 160, legend: { show: false }, axes: [axis, { ...axis, size: 60 }],
      series: [{}, { stroke: colour, width: 2, spanGaps: false, points: { show: chart.values.length < 40 } }],
    }, [chart.times, chart.values], figure);
    const last = chart.values.filter((value) => value !== null).at(-1);
    plot.root.setAttribute("role", "img");
    plot.root.setAttribute("aria-label", `${caption.textContent}; latest value ${last === undefined ? "none" : last}`);
    addEventListener("resize", () => plot.setSize({ width: figure.clientWidth, height: 160 }));
  }
}

// How long something lasts is counted here, so that the server sends nothing while nothing happens.
function tick() {
  for (const place of document.querySelectorAll("time[data-since]")) {
    const total = Math.max(0, Math.floor((Date.now() - new Date(place.dataset.since)) / 1000));
    const [days, hours, minutes] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60];
    if (days) place.textContent = `${days}d ${hours}h`;
    else if (hours) place.textContent = `${hours}h ${minutes}m`;
    else place.textContent = minutes ? `${minutes}m ${total % 60}s` : `${total}s`;
  }
}

function countChosen() {
  const chosen = document.querySelectorAll("input[name=bot]:checked").length;
  for (const button of document.querySelectorAll("[data-bulk]")) button.disabled = !chosen;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "choose-all")
    for (const box of document.querySelectorAll("input[name=bot]")) box.checked = event.target.checked;
  if (event.target.matches("input[name=bot], #choose-all")) countChosen();
});

// Rows are replaced while somebody chooses some of them: what was chosen and focused stays so.
let kept = null;
document.addEventListener("htmx:sseBeforeMessage", (event) => {
  if (event.target.id !== "bots" && event.target.querySelector?.("#bots") === null) return;
  kept = { chosen: [...document.querySelectorAll("input[name=bot]:checked")].map((box) => box.value), focus: document.activeElement?.id };
});
document.addEventListener("htmx:afterSettle", () => {
  if (kept) {
    for (const box of document.querySelectorAll("input[name=bot]")) box.checked = kept.chosen.includes(box.value);
    if (kept.focus) document.getElementById(kept.focus)?.focus();
    kept = null;
  }
  tick();
  countChosen();
  const dialog = document.querySelector("dialog[data-show]");
  if (dialog && !dialog.open) dialog.showModal();
});
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    await navigator.clipboard.writeText(copy.dataset.copy);
    copy.textContent = "Copied";
  }
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
});
document.addEventListener("close", (event) => { if (event.target.matches("dialog")) event.target.remove(); }, true);

addEventListener("DOMContentLoaded", () => {
  const log = document.getElementById("log");
  if (log) startLog(log);
  const charts = document.getElementById("charts");
  if (charts) drawCharts(charts);
  tick();
  setInterval(tick, 1000);
  countChosen();
});
