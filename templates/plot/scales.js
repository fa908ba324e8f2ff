// Round numbers along an axis, as in `orchestrator/plot/ticks.py`.
function roundStep(wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= wanted * 0.75);
}
function multiples(low, high, step) {
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n += 1) found.push(Number((n * step).toPrecision(12)));
  return found;
}
function ticks(low, high, count, kind) {
  if (!(high > low)) return [low];
  const wanted = (high - low) / count;
  return multiples(low, high, kind === "bytes" ? 2 ** Math.ceil(Math.log2(wanted)) : roundStep(wanted));
}
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
function timeTicks(low, high, count) {
  const wanted = (high - low) / count;
  if (wanted < 1) return multiples(low, high, roundStep(wanted));
  return multiples(low, high, TIMES.find((step) => step >= wanted) ?? 86400 * roundStep(wanted / 86400));
}
function logTicks(low, high, count) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const factors = last - first <= 3 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = first; power <= last; power += 1) {
    for (const factor of factors) found.push(Number((factor * 10 ** power).toPrecision(3)));
  }
  const inside = found.filter((tick) => tick >= low && tick <= high);
  if (last - first <= 3) return inside.length >= 3 ? inside : ticks(low, high, count);
  const stride = Math.max(1, Math.ceil((inside.length - 1) / count));
  return inside.filter((tick, n) => n % stride === 0);
}
