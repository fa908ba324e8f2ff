// Numbers as text, as `orchestrator/plot/ticks.py` writes them.
function short(value, digits) {
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  return size !== 0 && (size < 1e-4 || size >= 1e7) ? rounded.toExponential().replace("e+", "e") : String(rounded);
}
function scaled(value, steps, digits) {
  for (const [size, unit] of steps) {
    if (Math.abs(value) >= size * 0.9995) return short(value / size, digits) + unit;
  }
  return null;
}
const METRIC = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const BINARY = [[2 ** 40, " TiB"], [2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"]];
function written(value, kind, digits = 0) {
  if (value === null || value === undefined) return "–";
  if (kind === "bytes") return scaled(value, BINARY, digits || 3) ?? `${short(value, 3)} B`;
  if (kind === "share") return `${short(value * 100, digits || 3)}%`;
  if (kind === "percent") return `${short(value, digits || 3)}%`;
  if (kind === "rate" || Math.abs(value) >= 1e5) return scaled(value, METRIC, digits || 3) ?? short(value, digits || 3);
  if (!digits && Math.abs(value) >= 0.01) return value.toPrecision(4);
  return short(value, digits || 4);
}
function elapsed(seconds) {
  if (seconds < 10 && seconds !== Math.round(seconds)) return `${short(seconds, 2)}s`;
  const whole = Math.round(seconds);
  for (const [unit, below, size, part] of [["d", "h", 86400, 3600], ["h", "m", 3600, 60], ["m", "s", 60, 1]]) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / part);
    return `${Math.floor(whole / size)}${unit}${rest ? String(rest).padStart(2, "0") + below : ""}`;
  }
  return `${whole}s`;
}
const place = (x) => (state.axis === "time" ? elapsed(x) : Math.round(x).toLocaleString("en"));
