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

  // The first line at the linked time or after it: what links to a time doesn't know of the lines.
  let found = false;
  function isMarked(timestamp) {
    if (!marked || found || new Date(timestamp) < new Date(marked)) return false;
    found = true;
    return true;
  }

  function tell(text, looks) {
    status.textContent = text;
    status.className = `state ${looks}`;
  }

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
      link.textContent = new Date(entry.timestamp).toLocaleTimeString([], { hour12: false });
      line.append(link);
      if (isMarked(entry.timestamp)) line.classList.add("marked");
    } else line.append(document.createElement("i"));
    for (const [name, text] of [["level", entry.level || ""], ["message", entry.message]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      line.append(part);
    }
    line.hidden = !shows(entry.message);
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.append(line);
    while (box.childElementCount > MOST_LINES) box.firstElementChild.remove();
    if (line.classList.contains("marked")) line.scrollIntoView({ block: "center" });
    else if (atEnd && !marked) box.scrollTop = box.scrollHeight;
  }

  function connect() {
    if (state.source) state.source.close();
    box.replaceChildren();
    found = false;
    const query = new URLSearchParams({ level: level.value });
    if (marked) query.set("at", marked);
    state.source = new EventSource(`${box.dataset.source}?${query}`);
    state.source.addEventListener("line", (event) => {
      const entry = JSON.parse(event.data);
      if (state.paused) {
        state.waiting.push(entry);
        if (state.waiting.length > MOST_LINES) state.waiting.shift();
        tell(`Paused; ${state.waiting.length} new ${state.waiting.length === 1 ? "line" : "lines"}`, "warn");
      } else add(entry);
    });
    state.source.addEventListener("open", () => {
      box.replaceChildren();  // after a lost connection all lines come again
      found = false;
      if (!state.paused) tell("Live", "ok");
    });
    state.source.addEventListener("error", () => tell("Connection lost; trying again", "bad"));
    state.source.addEventListener("removed", () => { state.source.close(); tell("The bot was removed", "idle"); });
  }

  if (marked) document.getElementById("log-at").hidden = false;
  level.addEventListener("change", connect);
  filter.addEventListener("input", () => {
    const problem = document.getElementById("log-filter-problem");
    try {
      state.pattern = filter.value ? new RegExp(filter.value, "i") : null;
      filter.removeAttribute("aria-invalid");
      problem.hidden = true;
    } catch (error) {
      filter.setAttribute("aria-invalid", "true");
      problem.textContent = error.message;
      problem.hidden = false;
      return;
    }
    for (const line of box.children) line.hidden = !shows(line.querySelector(".message").textContent);
  });
  pause.addEventListener("click", () => {
    state.paused = !state.paused;
    pause.setAttribute("aria-pressed", String(state.paused));
    pause.textContent = state.paused ? "Resume" : "Pause";
    if (!state.paused) {
      state.waiting.splice(0).forEach(add);
      tell("Live", "ok");
    } else tell("Paused", "warn");
  });
  connect();
}

const plots = [];
addEventListener("resize", () => {
  for (const [plot, figure] of plots) plot.setSize({ width: figure.clientWidth, height: 150 });
});

async function drawCharts(place, span) {
  const answer = await fetch(`${place.dataset.source}?span=${span}`, { headers: { Accept: "application/json" } }).catch(() => null);
  const charts = answer?.ok ? await answer.json() : null;
  const style = getComputedStyle(document.documentElement);
  const [text, grid, colour] = ["--quiet", "--line", "--pico-primary"].map((name) => style.getPropertyValue(name).trim());
  place.replaceChildren();
  plots.length = 0;
  if (!charts?.length) {
    const note = document.createElement("p");
    note.className = "quiet";
    note.textContent = charts ? `Nothing recorded in the last ${span}.` : "The charts couldn't be loaded; reload the page to try again.";
    place.append(note);
    return;
  }
  for (const chart of charts) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const title = document.createElement("span");
    const latest = document.createElement("strong");
    const last = chart.values.filter((value) => value !== null).at(-1);
    const number = last === undefined ? "none" : Number(last.toPrecision(4)).toLocaleString("en");
    title.textContent = chart.unit ? `${chart.title} (${chart.unit})` : chart.title;
    latest.textContent = number;
    caption.append(title, latest);
    figure.append(caption);
    place.append(figure);
    const axis = { stroke: text, font: "11px system-ui", grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const hours = span === "hour" || span === "day" ? [[3600, "{HH}:{mm}"], [60, "{HH}:{mm}"], [1, "{HH}:{mm}"]] : [[86400, "{D} {MMM}"], [3600, "{HH}:{mm}"]];
    const times = hours.map(([seconds, shape]) => [seconds, shape, null, null, null, null, null, null, 1]);
    const plot = new uPlot({
      width: figure.clientWidth || 320, height: 150, legend: { show: false }, cursor: { drag: { x: false, y: false } },
      axes: [{ ...axis, values: times, space: 60, size: 26 }, { ...axis, size: 54, space: 24 }],
      series: [{}, { stroke: colour, fill: `${colour}1f`, width: 1.5, spanGaps: false, points: { show: chart.values.length < 40 } }],
    }, [chart.times, chart.values], figure);
    plot.root.setAttribute("role", "img");
    plot.root.setAttribute("aria-label", `${title.textContent}, last ${span}; latest value ${number}`);
    plots.push([plot, figure]);
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

function countSelected() {
  const boxes = [...document.querySelectorAll("input[name=bot]")];
  const selected = boxes.filter((box) => box.checked).length;
  for (const button of document.querySelectorAll("[data-bulk]")) button.disabled = !selected;
  const text = document.getElementById("selected");
  if (text) text.textContent = selected ? `${selected} selected` : "None selected";
  const all = document.getElementById("select-all");
  if (all) {
    all.checked = selected > 0 && selected === boxes.length;
    all.indeterminate = selected > 0 && selected < boxes.length;
  }
}

// Buttons of a bot's page that would do nothing now can't be pressed.
function allowActions() {
  const allowed = document.querySelector("[data-actions]")?.dataset.actions.split(" ");
  if (!allowed) return;
  const focused = document.activeElement;
  for (const button of document.querySelectorAll("[data-action]")) button.disabled = !allowed.includes(button.dataset.action);
  if (focused?.disabled) document.querySelector("[data-action]:not(:disabled)")?.focus();
}

// The tab tells how many bots are in trouble, for whoever looks elsewhere.
const title = document.title;
function showTrouble() {
  const trouble = Number(document.querySelector("[data-trouble]")?.dataset.trouble || 0);
  document.title = trouble ? `(${trouble}) ${title}` : title;
}

// What is shown may be old while the stream of updates is cut; a login that is over leads to the form.
document.addEventListener("htmx:sseError", async () => {
  document.getElementById("offline").hidden = false;
  const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
  if (answer?.type === "opaqueredirect") location.reload();
});
document.addEventListener("htmx:sseOpen", () => { document.getElementById("offline").hidden = true; });

function announce(text) {
  document.getElementById("announcements").textContent = text;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "select-all")
    for (const box of document.querySelectorAll("input[name=bot]")) box.checked = event.target.checked;
  if (event.target.matches("input[name=bot], #select-all")) countSelected();
  if (event.target.id === "span") drawCharts(document.getElementById("charts"), event.target.value);
});

// Rows are replaced while somebody selects some of them: what was selected and focused stays so, as do opened errors.
let kept = null;
function openErrors(place) {
  return new Map([...place.querySelectorAll("details")].map((one) => [one.querySelector("pre").textContent, one.open]));
}
document.addEventListener("htmx:sseBeforeMessage", (event) => {
  const place = event.target;
  if (place.id === "errors") kept = { place, open: openErrors(place), focus: document.activeElement?.id };
  if (place.id === "overview") {
    const selected = [...document.querySelectorAll("input[name=bot]:checked")].map((box) => box.value);
    kept = { place, selected, focus: document.activeElement?.id };
  }
});
document.addEventListener("htmx:afterSettle", () => {
  if (kept) {
    if (kept.selected)
      for (const box of document.querySelectorAll("input[name=bot]")) box.checked = kept.selected.includes(box.value);
    if (kept.open)
      for (const one of kept.place.querySelectorAll("details")) {
        const before = kept.open.get(one.querySelector("pre").textContent);
        if (before !== undefined) one.open = before;
      }
    if (kept.focus) document.getElementById(kept.focus)?.focus();
    kept = null;
  }
  tick();
  countSelected();
  allowActions();
  showTrouble();
  const dialog = document.querySelector("dialog[data-show]");
  if (dialog && !dialog.open) dialog.showModal();
});
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const done = await copyText(copy.dataset.copy, copy);
    copy.textContent = done ? "Copied" : "Press Ctrl+C";
    announce(done ? `Copied: ${copy.dataset.copy}` : "The browser doesn't let this page copy");
  }
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
});
// A page without TLS that isn't on this machine has no clipboard: there the old way works.
async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    (button.closest("dialog") || document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    button.focus();
    return done;
  }
}

document.addEventListener("htmx:sendError", () => announce("The cluster doesn't answer"));
document.addEventListener("close", (event) => { if (event.target.matches("dialog")) event.target.remove(); }, true);

addEventListener("DOMContentLoaded", () => {
  const log = document.getElementById("log");
  if (log) startLog(log);
  const charts = document.getElementById("charts");
  if (charts) drawCharts(charts, "hour");
  tick();
  setInterval(tick, 1000);
  countSelected();
  allowActions();
  showTrouble();
});
