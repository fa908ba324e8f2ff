// What of a run is shown, and where.
const along = (curve) => (state.axis === "time" ? curve.t : curve.s);
function curveOf(panel, run) {
  return panel.instead_of && run.curves[panel.instead_of] ? undefined : run.curves[panel.key];
}
function valuesOf(panel) {
  const curves = shown().flatMap((run) => [curveOf(panel, run), curveOf(panel, run) && run.curves[panel.beside]]);
  return curves.flatMap((curve) => (curve ? curve.v : [])).filter((y) => y !== null);
}
// Where nothing is above 0 a log scale would be empty.
const onLog = (panel) => state.log.has(panel.key) && valuesOf(panel).some((y) => y > 0);
// An old value is not the current one.
const lastOf = (run, key, kind) => (key in run.not_finite ? "not finite" : written(run.last[key] ?? null, kind));
function fullRange() {
  let low = 0, high = 0;
  for (const run of data.runs) {
    for (const curve of Object.values(run.curves)) {
      for (const x of along(curve)) if (x !== null) { low = Math.min(low, x); high = Math.max(high, x); }
    }
  }
  return [low, high > low ? high : low + 1];
}
const range = () => state.range ?? fullRange();
function valueRange(panel, log) {
  const [from, to] = range();
  let low = Infinity, high = -Infinity;
  for (const run of shown()) {
    for (const curve of [curveOf(panel, run), run.curves[panel.beside]]) {
      if (!curve) continue;
      along(curve).forEach((x, i) => {
        if (x === null || x < from || x > to) return;
        for (const y of [curve.l[i], curve.h[i]]) {
          if (y === null || (log && y <= 0)) continue;
          low = Math.min(low, y);
          high = Math.max(high, y);
        }
      });
    }
  }
  if (low > high) return log ? [0.1, 10] : [0, panel.top ?? 1];
  if (log) return [low / 1.08, high * 1.08];
  if (panel.from_zero) low = Math.min(low, 0);
  if (panel.top !== null) return [low, Math.max(high, panel.top)];
  const margin = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  return [panel.from_zero && low === 0 ? 0 : low - margin, high + margin];
}
function nearest(curve, x) {
  let best = -1, distance = Infinity;
  along(curve).forEach((at, i) => {
    if (at !== null && Math.abs(at - x) < distance) { best = i; distance = Math.abs(at - x); }
  });
  return best;
}
