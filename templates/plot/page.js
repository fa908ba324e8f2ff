// The page around the panels, and how it starts.
function redraw() {
  controls();
  legend();
  for (const card of cards) { headOf(card); draw(card); }
}
function controls() {
  const choice = make("div", { class: "choice", role: "group", "aria-label": "Horizontal axis" });
  for (const [axis, word] of [["step", "Step"], ["time", "Time"]]) {
    choice.append(button(word, state.axis === axis, () => { state.axis = axis; state.range = null; redraw(); }, `axis-${axis}`));
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const other = theme === "dark" ? "light" : "dark";
  const look = button(other === "dark" ? "Dark" : "Light", false, () => { document.documentElement.dataset.theme = other; controls(); }, "theme");
  look.removeAttribute("aria-pressed");
  const parts = [choice, look];
  if (state.range) parts.unshift(button("Whole range", false, () => { state.range = null; redraw(); }, "whole"));
  document.getElementById("controls").replaceChildren(...parts);
}
function legend() {
  const holder = document.getElementById("legend");
  holder.hidden = !several();
  holder.replaceChildren(...data.runs.map((run) => {
    const chip = button("", !state.off.has(run.number), () => {
      if (!state.off.delete(run.number)) state.off.add(run.number);
      state.loud = null;
      redraw();
    }, "run");
    const swatch = shape(chip, "svg", { width: 22, height: 10 });
    shape(swatch, "line", { class: `swatch ${colour(run)}${dash(run)}`, x1: 2, x2: 20, y1: 5, y2: 5 });
    chip.append(make("span", { class: "mark" }, run.mark), make("span", {}, run.id), make("span", { class: "soft" }, run.state));
    const loud = (number) => () => { state.loud = number; for (const card of cards) draw(card); };
    chip.addEventListener("pointerenter", loud(run.number));
    chip.addEventListener("pointerleave", loud(null));
    return chip;
  }));
}
function headOf(card) {
  const { panel } = card;
  const words = [panel.unit];
  if (shown().some((run) => run.curves[panel.beside])) words.push("● held-out");
  const bad = shown().reduce((sum, run) => sum + (curveOf(panel, run)?.bad.reduce((all, [, count]) => all + count, 0) ?? 0), 0);
  const head = [make("h2", {}, panel.title), make("span", { class: "key" }, words.filter(Boolean).join("  ·  "))];
  if (bad) head.push(make("span", { class: "bad" }, `× not finite: ${bad}`));
  const below = state.log.has(panel.key) ? valuesOf(panel).filter((y) => y <= 0).length : 0;
  if (below) head.push(make("span", { class: "bad" }, onLog(panel) ? `${below} not above 0, left out` : "not log: nothing above 0"));
  if (panel.can_log) {
    head.push(button("log", state.log.has(panel.key), () => {
      if (!state.log.delete(panel.key)) state.log.add(panel.key);
      redraw();
    }, "small log"));
  }
  card.head.replaceChildren(...head);
}
function addCard(panel, number) {
  panel.wide = number === 0;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "plot");
  svg.setAttribute("role", "img");
  svg.setAttribute("tabindex", "0");
  const head = make("div", { class: "head" }), tip = make("div", { class: "tip", role: "status" });
  tip.hidden = true;
  const element = make("section", { class: panel.wide ? "card wide" : "card", id: `panel-${panel.key}` }, head, svg, tip);
  document.getElementById("panels").append(element);
  const card = { panel, svg, head, tip, element };
  cards.push(card);
  listen(card);
}
function summary() {
  const mean = (values) => { const all = values.filter((y) => y !== null); return all.length ? all.reduce((a, b) => a + b, 0) / all.length : null; };
  const least = (curve) => (curve ? curve.l.reduce((a, b) => (b !== null && (a === null || b < a) ? b : a), null) : null);
  const most = (curve) => (curve ? curve.h.reduce((a, b) => (b !== null && (a === null || b > a) ? b : a), null) : null);
  const columns = [
    ["Run", (run) => `${several() ? run.mark + "  " : ""}${run.id}`],
    ["State", (run) => run.state],
    ["Step", (run) => (run.step === null ? null : `${run.step.toLocaleString("en")}${run.steps ? " of " + run.steps.toLocaleString("en") : ""}`)],
    ["Loss", (run) => (run.curves.loss ? lastOf(run, "loss", "number") : null)],
    ["Held-out, last", (run) => (run.curves.eval_loss ? lastOf(run, "eval_loss", "number") : null)],
    ["Held-out, best", (run) => least(run.curves.eval_loss), "number"],
    ["Accuracy", (run) => run.last.eval_accuracy, "share"],
    ["Tokens/s", (run) => (run.curves.tokens_per_s ? mean(run.curves.tokens_per_s.v) : null), "rate"],
    ["Samples/s", (run) => (run.curves.samples_per_s && !run.curves.tokens_per_s ? mean(run.curves.samples_per_s.v) : null), "rate"],
    ["GPU use", (run) => (run.curves.gpu_util ? mean(run.curves.gpu_util.v) : null), "percent"],
    ["Peak memory", (run) => most(run.curves.memory_bytes), "bytes"],
    ["Time", (run) => elapsed(run.seconds)],
    ["Restarts", (run) => String(run.restarts)],
  ].filter(([, value]) => data.runs.some((run) => (value(run) ?? null) !== null));
  const table = make("table"), first = table.createTHead().insertRow(), body = table.createTBody();
  for (const [title] of columns) first.append(make("th", { scope: "col" }, title));
  for (const run of data.runs) {
    const line = body.insertRow();
    for (const [, value, kind] of columns) {
      const found = value(run) ?? null;
      cell(line, "", typeof found === "number" ? written(found, kind) : found ?? "–");
    }
  }
  document.getElementById("summary").append(table);
}
function start() {
  document.getElementById("title").textContent = data.title;
  document.getElementById("subtitle").textContent = data.subtitle;
  document.getElementById("footer").textContent = data.notes.join(" ");
  data.runs.forEach((run, number) => {
    run.number = number;
    for (const curve of Object.values(run.curves)) {
      [curve.s, curve.t] = run.axes[curve.axis];
      curve.l ??= curve.v;
      curve.h ??= curve.v;
    }
  });
  data.panels.forEach(addCard);
  summary();
  redraw();
  new ResizeObserver(() => cards.filter((card) => card.width !== widthOf(card)).forEach(draw)).observe(document.getElementById("panels"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", controls);
}
start();
