// One panel: axes, curves, marks.
function draw(card) {
  const { panel, svg } = card;
  const width = widthOf(card), height = panel.wide ? Math.min(380, Math.max(240, width * 0.36)) : 210;
  svg.setAttribute("height", height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const log = onLog(panel);
  const [x0, x1] = range(), [y0, y1] = valueRange(panel, log);
  const right = PAD.right + (several() ? 8 : 0);
  const box = { left: PAD.left, top: PAD.top, right: width - right, bottom: height - PAD.bottom };
  const toX = (x) => box.left + ((x - x0) / (x1 - x0)) * (box.right - box.left);
  const share = (y) => (log ? (Math.log(y) - Math.log(y0)) / (Math.log(y1) - Math.log(y0)) : (y - y0) / (y1 - y0));
  const toY = (y) => box.bottom - share(y) * (box.bottom - box.top);
  card.tip.hidden = true;
  Object.assign(card, { width, box, toX, toY, x0, x1, log });
  axes(card, [y0, y1], width);
  const clip = `clip-${panel.key}`;
  const frame = shape(shape(svg, "clipPath", { id: clip }), "rect", { x: box.left, y: 0, width: box.right - box.left + 1, height: box.bottom + 1 });
  frame.setAttribute("rx", 1);
  const inner = shape(svg, "g", { "clip-path": `url(#${clip})` });
  card.ends = [];
  for (const run of shown()) if (curveOf(panel, run)) drawRun(card, inner, run);
  endMarks(card);
  card.over = shape(svg, "g", { "pointer-events": "none" });
  svg.setAttribute("aria-label", `${panel.title}: ${shown().filter((run) => curveOf(panel, run)).map((run) => `${run.id} ${lastOf(run, panel.key, panel.kind)}`).join(", ")}`);
}
const widthOf = (card) => Math.max(160, card.svg.clientWidth);
function axes(card, [y0, y1], width) {
  const { svg, panel, box, toX, toY, x0, x1, log } = card;
  const rows = Math.max(3, Math.floor((box.bottom - box.top) / 38));
  for (const tick of log ? logTicks(y0, y1, rows) : ticks(y0, y1, rows, panel.kind)) {
    const y = toY(tick);
    shape(svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y });
    shape(svg, "text", { class: "y-tick", x: box.left - 8, y: y + 4, "text-anchor": "end", "data-value": tick }, written(tick, panel.kind, 3));
  }
  const columns = Math.max(2, Math.floor((box.right - box.left) / 80));
  const places = state.axis === "time" ? timeTicks(x0, x1, columns) : ticks(x0, x1, columns).filter(Number.isInteger);
  for (const tick of places) {
    const x = toX(tick);
    shape(svg, "line", { class: "axis", x1: x, x2: x, y1: box.bottom, y2: box.bottom + 4 });
    const text = state.axis === "time" ? elapsed(tick) : tick < 1e6 ? tick.toLocaleString("en") : written(tick, "rate");
    shape(svg, "text", { class: "x-tick", x: Math.min(x, width - 3.6 * text.length), y: box.bottom + 17, "text-anchor": "middle", "data-value": tick }, text);
  }
  shape(svg, "line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
}
function drawRun(card, parent, run) {
  const { panel, box, toX, toY } = card;
  const curve = curveOf(panel, run);
  const quiet = state.loud !== null && state.loud !== run.number ? " dim" : "";
  const group = shape(parent, "g", { class: `of-run${quiet}`, "data-run": run.id });
  restarts(card, group, run);
  const drawn = sparse(card, run, curve);
  if (drawn.l !== drawn.v) shape(group, "path", { class: `band ${colour(run)}`, d: band(card, drawn, run) });
  shape(group, "path", { class: `line ${colour(run)}${dash(run)}`, d: polyline(card, drawn, run) });
  const known = curve.v.filter((y) => y !== null).length;
  const xs = along(curve);
  if (known <= 2) curve.v.forEach((y, i) => dot(card, group, run, xs[i], y, 3.5));
  for (const [i, count] of curve.bad) {
    if (xs[i] === null) continue;
    const x = toX(xs[i]), y = box.bottom - 8;
    const cross = shape(group, "path", { class: "notfinite", d: `M${x - 4} ${y - 4}L${x + 4} ${y + 4}M${x - 4} ${y + 4}L${x + 4} ${y - 4}` });
    shape(cross, "title", {}, `not finite: ${count}`);
  }
  const beside = run.curves[panel.beside];
  if (beside) {
    shape(group, "path", { class: `beside ${colour(run)}`, d: polyline(card, beside, run) });
    const seen = beside.v.filter((y, i) => visible(card, along(beside)[i], y)).length;
    if (seen <= MOST_DOTS) beside.v.forEach((y, i) => dot(card, group, run, along(beside)[i], y, data.runs.length > 4 ? 2.6 : 3.5));
  }
  const last = curve.v.findLastIndex((y, i) => visible(card, xs[i], y));
  if (last >= 0) card.ends.push({ run, x: toX(xs[last]), y: toY(curve.v[last]) });
}
function visible(card, x, y) {
  return x !== null && y !== null && x >= card.x0 && x <= card.x1 && !(card.log && y <= 0);
}
function dot(card, parent, run, x, y, radius) {
  if (visible(card, x, y)) shape(parent, "circle", { class: `dot ${colour(run)}`, cx: card.toX(x).toFixed(2), cy: card.toY(y).toFixed(2), r: radius });
}
// The same curve with no more points than one can see; zooming brings them back.
function sparse(card, run, curve) {
  const xs = along(curve), inside = xs.filter((x) => x !== null && x >= card.x0 && x <= card.x1);
  const size = Math.ceil((inside.length * DENSE) / Math.max(1, card.toX(inside.at(-1)) - card.toX(inside[0])));
  if (!(size > 1) || inside.length < 10) return curve;
  const made = { s: [], t: [], v: [], l: [], h: [] };
  let from = 0;
  while (from < xs.length) {
    const gap = (i) => xs[i] === null || curve.v[i] === null;
    let to = from + 1;
    while (to < xs.length && to - from < size && gap(to) === gap(from) && !stood(run, xs, to)) to += 1;
    const middle = from === 0 ? 0 : to === xs.length ? to - 1 : (from + to - 1) >> 1;
    made.s.push(curve.s[middle]);
    made.t.push(curve.t[middle]);
    const values = curve.v.slice(from, to);
    made.v.push(gap(from) ? null : values.reduce((a, b) => a + b, 0) / values.length);
    made.l.push(gap(from) ? null : Math.min(...curve.l.slice(from, to)));
    made.h.push(gap(from) ? null : Math.max(...curve.h.slice(from, to)));
    from = to;
  }
  return made;
}
// Whether a new attempt began between a point and the one before: over time the run stood still.
function stood(run, xs, i) {
  return state.axis === "time" && i > 0 && run.starts.some((start) => start.t > xs[i - 1] && start.t <= xs[i]);
}
// A gap where nothing finite was reported, and over time where no attempt was running.
function polyline(card, curve, run) {
  const xs = along(curve), { toX, toY } = card, parts = [];
  let open = false;
  curve.v.forEach((y, i) => {
    if (xs[i] === null || y === null || (card.log && y <= 0)) { open = false; return; }
    if (stood(run, xs, i)) open = false;
    parts.push(`${open ? "L" : "M"}${toX(xs[i]).toFixed(2)} ${toY(y).toFixed(2)}`);
    open = true;
  });
  return parts.join("");
}
function band(card, curve, run) {
  const xs = along(curve), { toX, toY } = card, parts = [];
  let stretch = [];
  const close = () => {
    if (stretch.length > 1) {
      const top = stretch.map((i) => `${toX(xs[i]).toFixed(1)} ${toY(curve.h[i]).toFixed(1)}`);
      const bottom = stretch.map((i) => `${toX(xs[i]).toFixed(1)} ${toY(curve.l[i]).toFixed(1)}`).reverse();
      parts.push(`M${top.join("L")}L${bottom.join("L")}Z`);
    }
    stretch = [];
  };
  curve.v.forEach((y, i) => {
    if (xs[i] === null || y === null || (card.log && curve.l[i] <= 0)) close();
    else {
      if (stood(run, xs, i)) close();
      stretch.push(i);
    }
  });
  close();
  return parts.join("");
}
function restarts(card, parent, run) {
  const { box, toX, x0, x1 } = card;
  for (const start of run.starts.slice(1)) {
    const x = state.axis === "time" ? start.t : start.step;
    if (x < x0 || x > x1) continue;
    const line = shape(parent, "line", { class: `restart ${colour(run)}`, x1: toX(x), x2: toX(x), y1: box.top, y2: box.bottom });
    shape(line, "title", {}, `${run.id}: ${start.words}`);
    if (card.panel.wide && run.starts.length <= 9) shape(parent, "text", { class: "restart-label", x: toX(x) + 4, y: box.top + 9 }, `${several() ? run.mark + " " : ""}attempt ${start.attempt}`);
  }
}
// Letters at the curves' ends tell runs apart without colours. They make room for each other, and
// one that would stand too far from its curve is left out.
function endMarks(card) {
  if (!several()) return;
  const taken = [], limit = card.box.bottom + 2;
  for (const end of card.ends.sort((a, b) => b.y - a.y)) {
    const near = taken.filter((other) => Math.abs(other.x - end.x) < 12);
    const y = [0, -12, 12, -24, 24].map((by) => Math.min(end.y + by, limit)).find((wanted) => near.every((other) => Math.abs(other.y - wanted) >= 11.5));
    if (y === undefined) continue;
    taken.push({ x: end.x, y });
    const quiet = state.loud !== null && state.loud !== end.run.number ? " dim" : "";
    shape(card.svg, "text", { class: `end ${colour(end.run)}${quiet}`, x: Math.min(end.x, card.box.right) + 7, y: y + 4 }, end.run.mark);
  }
}
