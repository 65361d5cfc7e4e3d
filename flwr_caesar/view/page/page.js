"use strict";
// Reads the run again and again. All that a run says is set as text, never as markup.

const byId = (id) => document.getElementById(id);
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const list = (value) => (Array.isArray(value) ? value.filter((v) => v && typeof v === "object") : []);
const say = (value) => (value === null || value === undefined || value === "" ? "–" : String(value));

function amount(bytes) {
  if (number(bytes) === null) return "–";
  for (const [unit, name] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
    if (bytes >= unit) return `${Number((bytes / unit).toPrecision(3))} ${name}`;
  return `${Math.round(bytes)} B`;
}

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 360) / 10} h`;
}

const COLUMNS = [
  ["node", "device", say],
  ["class", "class", say],
  ["round", "last round", say],
  ["model", "model", say],
  ["age", "residual's age", say],
  ["rate", "bits a parameter", (v) => (number(v) === null ? "–" : short(v))],
  ["batch", "batch", say],
  ["bytes_up", "up", amount],
  ["bytes_down", "down", amount],
  ["link", "link", (v) => (number(v) === null ? "–" : `${amount(v)}/s`)],
  ["watts", "watts", (v) => (number(v) === null ? "–" : short(v))],
  ["celsius", "°C", (v) => (number(v) === null ? "–" : short(v))],
  ["refusals", "not used", say],
  ["reason", "last reason", say],
];
const MOST_ROWS = 300;
const state = { run: "", known: "", told: null, sort: "round", down: true };

function tiles(told, rounds) {
  const last = rounds[rounds.length - 1] || {};
  const accuracies = rounds.map((r) => number(r.accuracy)).filter((a) => a !== null);
  const sent = (last.total_bytes_up || 0) + (last.total_bytes_down || 0);
  const left = secondsLeft(told, rounds);
  const shown = [
    ["round", `${say(last.round)}${told.planned ? ` of ${told.planned}` : ""}`],
    ["accuracy", accuracies.length ? `${(100 * accuracies[accuracies.length - 1]).toFixed(2)} %` : "–"],
    ["up", amount(last.total_bytes_up)],
    ["down", amount(last.total_bytes_down)],
    ["× fewer than uncompressed", last.total_raw_bytes && sent ? (last.total_raw_bytes / sent).toFixed(1) : "–"],
    ["ends", told.state === "finished" ? "it has ended" : left === null ? "–" : `about ${clock(left)}`],
  ];
  byId("tiles").replaceChildren(...shown.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  const done = byId("rounds-done");
  done.max = told.planned || 1;
  done.value = told.planned ? last.round || 0 : told.state === "finished" ? 1 : 0;
}

function secondsLeft(told, rounds) {
  const known = rounds.slice(-6);
  if (!told.planned || known.length < 2 || told.state === "failed") return null;
  const first = known[0], last = known[known.length - 1];
  return (Math.max(told.planned - last.round, 0) * (last.seconds - first.seconds)) / (known.length - 1);
}

function clock(seconds) {
  const end = new Date(Date.now() + 1000 * seconds);
  return `${end.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })} (${span(seconds)})`;
}

function phase(told, rounds) {
  const now = told.now || {};
  const last = rounds.length ? rounds[rounds.length - 1].round : 0;
  if (told.state !== "running" || !(now.round > last)) return "";
  const refused = Object.entries(now.refused || {});
  const dropped = refused.reduce((sum, [, count]) => sum + count, 0);
  const most = refused.sort((a, b) => b[1] - a[1])[0];
  return `Round ${now.round}, ${now.phase}: ${now.answered} of ${now.asked} devices have answered, ${now.asked - now.answered} are waited for` +
    (dropped ? `; ${dropped} not used, most often because of: ${most[0]}.` : ".");
}

function stateText(told) {
  const quiet = number(told.quiet);
  if (told.state === "running" && quiet !== null && quiet > 60) return `running, or stopped: nothing new for ${span(quiet)}`;
  return { running: "running", finished: "finished", failed: "failed", starting: "starting" }[told.state] || "unknown";
}

function devices(told) {
  const wanted = byId("search").value.trim().toLowerCase();
  const all = list(told.devices);
  const found = all.filter((d) => [d.node, d.class, d.reason].some((v) => say(v).toLowerCase().includes(wanted)));
  const key = state.sort, sign = state.down ? -1 : 1;
  found.sort((a, b) => {
    const x = a[key], y = b[key];
    if (typeof x === "number" && typeof y === "number") return sign * (x - y);
    if (typeof x === "number" || typeof y === "number") return typeof x === "number" ? -1 : 1;
    return sign * say(x).localeCompare(say(y), "en", { numeric: true });
  });
  const head = element("tr");
  for (const [name, title] of COLUMNS) {
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      state.down = state.sort === name ? !state.down : true;
      state.sort = name;
      devices(state.told);
      byId("devices").querySelector(`th[data-name="${name}"] button`).focus();
    });
    const sorted = name === key ? (state.down ? "descending" : "ascending") : "none";
    head.append(element("th", { scope: "col", "aria-sort": sorted, "data-name": name }, button));
  }
  const rows = found.slice(0, MOST_ROWS).map((device) => {
    const row = element("tr");
    for (const [name, , show] of COLUMNS)
      row.append(element(name === "node" ? "th" : "td", name === "reason" ? { class: "words" } : name === "node" ? { scope: "row" } : {}, show(device[name])));
    return row;
  });
  const table = byId("devices");
  const active = document.activeElement?.closest?.("th[data-name]")?.dataset.name;
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows);
  if (active) table.querySelector(`th[data-name="${active}"] button`)?.focus();
  const more = found.length > MOST_ROWS ? `, the first ${MOST_ROWS} are shown` : "";
  const text = `${found.length} of ${all.length} devices${more}`;
  if (byId("count").textContent !== text) byId("count").textContent = text;
}

function show(told) {
  state.told = told;
  if (told.unreachable) {
    byId("state").textContent = `cannot be reached: ${told.unreachable}`;
    return;
  }
  const rounds = list(told.rounds);
  document.title = `${say(told.strategy)}: ${say(told.name)}`;
  byId("name").textContent = `${say(told.strategy)} · ${say(told.name)}`;
  const text = stateText(told);
  if (byId("state").textContent !== text) byId("state").textContent = text;
  byId("state").className = say(told.state);
  tiles(told, rounds);
  byId("phase").textContent = phase(told, rounds);
  accuracyChart(byId("accuracy"), rounds);
  barChart(byId("bytes"), "Bytes of each round", rounds, [
    { name: "up", look: "up", of: (r) => r.bytes_up / 1e6 },
    { name: "down", look: "down", of: (r) => r.bytes_down / 1e6 },
  ], "megabytes");
  const before = new Map(rounds.map((r, i) => [r.round, i ? r.seconds - rounds[i - 1].seconds : r.seconds]));
  barChart(byId("seconds"), "Seconds of each round", rounds, [
    { name: "server's own work", look: "up", of: (r) => r.seconds_server },
    { name: "devices, network and waiting", look: "down", of: (r) => Math.max(before.get(r.round) - r.seconds_server, 0) },
  ], "seconds");
  devices(told);
  const events = list(told.events).slice().reverse();
  byId("events").replaceChildren(...(events.length ? events : [{ kind: "nothing", text: "yet" }]).map((event) =>
    element("li", { class: event.kind === "failed" ? "failed" : "" }, element("strong", {}, say(event.kind)), ` ${say(event.text)}`)));
  const opened = new Set([...byId("settings").querySelectorAll("details[open]")].map((d) => d.dataset.file));
  byId("settings").replaceChildren(...list(told.settings).map((one) => {
    const box = element("details", { "data-file": say(one.file) }, element("summary", {}, say(one.file)), element("pre", {}, say(one.text)));
    box.open = opened.has(say(one.file));
    return box;
  }));
  const summary = Object.entries(told.summary || {});
  byId("summary-box").hidden = !summary.length;
  byId("summary").replaceChildren(...summary.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, say(value))]));
  const runs = Array.isArray(told.runs) ? told.runs.map(String) : [];
  byId("choose").hidden = runs.length < 2;
  if (byId("runs").options.length !== runs.length)
    byId("runs").replaceChildren(...runs.map((name) => element("option", { value: name }, name)));
}

async function read() {
  try {
    const query = new URLSearchParams({ run: state.run, known: state.known });
    const answer = await fetch(`/data?${query}`);
    if (answer.status === 200) {
      const told = await answer.json();
      show(told);
      state.known = say(told.stamp);
    } else if (answer.status !== 204) throw new Error(`status ${answer.status}`);
  } catch (error) {
    byId("state").textContent = `the page's server does not answer: ${error.message}`;
  }
}

byId("search").addEventListener("input", () => state.told && devices(state.told));
byId("runs").addEventListener("change", (event) => {
  state.run = event.target.value;
  state.known = "";
  read();
});
read();
setInterval(read, 2000);
