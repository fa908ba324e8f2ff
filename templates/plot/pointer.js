// What the pointer and the arrow keys do.
function hover(card, x) {
  for (const other of cards) {
    other.over.replaceChildren();
    other.tip.hidden = true;
    if (x === null) continue;
    const at = other.toX(x);
    shape(other.over, "line", { class: "cross", x1: at, x2: at, y1: other.box.top, y2: other.box.bottom });
    for (const run of shown()) {
      const curve = curveOf(other.panel, run);
      const i = curve ? nearest(curve, x) : -1;
      if (i >= 0) dot(other, other.over, run, along(curve)[i], curve.v[i], 4);
    }
  }
  if (x !== null) tooltip(card, x);
}
function tooltip(card, x) {
  const { panel, tip, toX, box } = card;
  const rows = [];
  for (const run of shown()) {
    const curve = curveOf(panel, run);
    const i = curve ? nearest(curve, x) : -1;
    if (i < 0) continue;
    const beside = run.curves[panel.beside], j = beside ? nearest(beside, x) : -1;
    const close = j >= 0 && Math.abs(toX(along(beside)[j]) - toX(x)) <= REACH;
    rows.push({ run, at: along(curve)[i], text: valueText(panel, curve, i), beside: close ? `held-out ${valueText(panel, beside, j)}` : "" });
  }
  if (!rows.length) return;
  const closest = rows.reduce((a, b) => (Math.abs(b.at - x) < Math.abs(a.at - x) ? b : a)).at;
  const table = make("table");
  for (const row of rows) {
    const line = table.insertRow();
    const swatch = shape(line.insertCell(), "svg", { width: 16, height: 8 });
    shape(swatch, "line", { class: `swatch ${colour(row.run)}${dash(row.run)}`, x1: 2, x2: 14, y1: 4, y2: 4 });
    cell(line, "name", `${several() ? row.run.mark + "  " : ""}${row.run.id}`);
    cell(line, "value", row.text);
    cell(line, "", row.beside);
    cell(line, "soft", Math.abs(toX(row.at) - toX(closest)) > 4 ? `at ${place(row.at)}` : "");
  }
  tip.replaceChildren(make("div", { class: "at" }, `${state.axis === "time" ? "" : "step "}${place(closest)}`), table);
  tip.hidden = false;
  const parent = card.element.getBoundingClientRect(), svg = card.svg.getBoundingClientRect();
  const left = svg.left - parent.left + toX(x), room = parent.width - left;
  const wanted = room > tip.offsetWidth + 24 ? left + 14 : left - tip.offsetWidth - 14;
  tip.style.left = `${Math.max(4, Math.min(wanted, parent.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${svg.top - parent.top + box.top + 16}px`;
}
function cell(line, kind, text) {
  const made = line.insertCell();
  made.className = kind;
  made.textContent = text;
}
function valueText(panel, curve, i) {
  if (curve.v[i] === null) return "not finite";
  const text = written(curve.v[i], panel.kind);
  return curve.l[i] === curve.h[i] ? text : `${text}  (${written(curve.l[i], panel.kind)} to ${written(curve.h[i], panel.kind)})`;
}
function listen(card) {
  const { svg } = card;
  let from = null, at = null;
  const toValue = (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const inside = Math.min(1, Math.max(0, (x - card.box.left) / (card.box.right - card.box.left)));
    return card.x0 + inside * (card.x1 - card.x0);
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    from = toValue(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    at = toValue(event);
    hover(card, at);
    if (from !== null && card.toX(at) !== card.toX(from)) {
      const [a, b] = [card.toX(from), card.toX(at)].sort((one, two) => one - two);
      shape(card.over, "rect", { class: "zoom", x: a, width: b - a, y: card.box.top, height: card.box.bottom - card.box.top });
    }
  });
  svg.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const to = toValue(event), wide = Math.abs(card.toX(to) - card.toX(from)) > 6;
    if (wide) state.range = [Math.min(from, to), Math.max(from, to)];
    from = null;
    if (wide) redraw();
  });
  svg.addEventListener("dblclick", () => { state.range = null; redraw(); });
  svg.addEventListener("pointerleave", () => { from = at = null; hover(card, null); });
  svg.addEventListener("blur", () => { at = null; hover(card, null); });
  svg.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const stride = (card.x1 - card.x0) / 100;
    at = Math.min(card.x1, Math.max(card.x0, (at ?? (card.x0 + card.x1) / 2) + way * stride));
    hover(card, at);
  });
}
