"use strict";
// Charts as SVG, each with its figures as a table for who does not see it.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 420, HIGH = 240, LEFT = 52, RIGHT = 12, TOP = 12, BOTTOM = 38;

function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function short(value) {
  if (!Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.01) return value.toExponential(1);
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 3 });
}

function steps(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9) + 1e-12; i += 1) found.push(i * step);
  return found;
}

function frame(title, description, x, y, labels) {
  const chart = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${title}. ${description}` });
  const place = {
    x: (v) => LEFT + ((v - x[0]) / (x[1] - x[0] || 1)) * (WIDE - LEFT - RIGHT),
    y: (v) => HIGH - BOTTOM - ((v - y[0]) / (y[1] - y[0] || 1)) * (HIGH - TOP - BOTTOM),
  };
  for (const v of steps(y[0], y[1])) {
    chart.append(svg("line", { class: "axis", x1: LEFT, x2: WIDE - RIGHT, y1: place.y(v), y2: place.y(v) }));
    chart.append(svg("text", { x: LEFT - 6, y: place.y(v) + 4, "text-anchor": "end" }, short(v)));
  }
  for (const v of steps(x[0], x[1]))
    chart.append(svg("text", { x: place.x(v), y: HIGH - BOTTOM + 16, "text-anchor": "middle" }, short(v)));
  chart.append(svg("text", { x: (LEFT + WIDE) / 2, y: HIGH - 4, "text-anchor": "middle" }, labels[0]));
  chart.append(svg("text", { x: 12, y: (HIGH - BOTTOM) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(HIGH - BOTTOM) / 2})` }, labels[1]));
  return [chart, place];
}

function asTable(head, rows) {
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    for (const cell of row) line.append(element("td", {}, cell));
    body.append(line);
  }
  const names = element("tr");
  for (const name of head) names.append(element("th", { scope: "col" }, name));
  const table = element("table", {}, element("thead", {}, names), body);
  return element("details", {}, element("summary", {}, "as a table"), element("div", { class: "scroll", tabindex: "0" }, table));
}

// Keeps what a reader had opened.
function fill(place, ...children) {
  const open = place.querySelector("details")?.open;
  place.replaceChildren(...children);
  const details = place.querySelector("details");
  if (details && open) details.open = true;
}

function accuracyChart(place, rounds) {
  const known = rounds.filter((r) => typeof r.accuracy === "number");
  if (!known.length) return fill(place, element("p", {}, "No accuracy is known yet."));
  const points = known.map((r) => [((r.total_bytes_up || 0) + (r.total_bytes_down || 0)) / 1e6, 100 * r.accuracy, r.round]);
  const low = Math.min(...points.map((p) => p[1])), high = Math.max(...points.map((p) => p[1]));
  const most = Math.max(...points.map((p) => p[0])) || 1;
  const last = points[points.length - 1];
  const [chart, at] = frame("Accuracy against megabytes", `${short(last[1])} percent after ${short(last[0])} megabytes`,
    [0, most], [Math.max(0, low - 2), Math.min(100, high + 2)], ["megabytes so far, up and down", "accuracy, %"]);
  chart.append(svg("polyline", { class: "line", points: points.map((p) => `${at.x(p[0])},${at.y(p[1])}`).join(" ") }));
  for (const p of points.slice(-60)) {
    const dot = svg("circle", { class: "dot", cx: at.x(p[0]), cy: at.y(p[1]), r: 3 });
    dot.append(svg("title", {}, `round ${p[2]}: ${short(p[1])} % after ${short(p[0])} MB`));
    chart.append(dot);
  }
  fill(place, chart, asTable(["round", "megabytes", "accuracy, %"], points.map((p) => [String(p[2]), short(p[0]), short(p[1])])));
}

function barChart(place, title, rounds, parts, label) {
  const shown = rounds.filter((r) => r.round > 0).slice(-120);
  if (!shown.length) return fill(place, element("p", {}, "No round is over yet."));
  const sums = shown.map((r) => parts.reduce((sum, part) => sum + (part.of(r) || 0), 0));
  const first = shown[0].round, last = shown[shown.length - 1].round;
  const [chart, at] = frame(title, `rounds ${first} to ${last}, ${short(sums[sums.length - 1])} in the last`,
    [first - 0.5, last + 0.5], [0, Math.max(...sums) || 1], ["round", label]);
  const width = Math.max((at.x(1) - at.x(0)) * 0.8, 1);
  for (const r of shown) {
    let below = 0;
    for (const part of parts) {
      const value = part.of(r) || 0;
      const bar = svg("rect", { class: part.look, x: at.x(r.round) - width / 2, width, y: at.y(below + value), height: Math.max(at.y(below) - at.y(below + value), 0) });
      bar.append(svg("title", {}, `round ${r.round}, ${part.name}: ${short(value)}`));
      chart.append(bar);
      below += value;
    }
  }
  const legend = element("p", { class: "legend" });
  for (const part of parts) legend.append(element("i", { class: part.look }), `${part.name}  `);
  fill(place, chart, legend, asTable(["round", ...parts.map((p) => p.name)], shown.map((r) => [String(r.round), ...parts.map((p) => short(p.of(r) || 0))])));
}
