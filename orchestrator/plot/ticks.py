"""Round numbers along an axis, and how numbers are written. Pure."""

from __future__ import annotations

import math

from orchestrator.plot.panels import Kind

_AT_LEAST = 0.75
"""A step may be so much smaller than the one that was wanted: better some numbers too many."""
_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds that make round steps of time; beyond them days do."""


def ticks(low: float, high: float, count: int, kind: Kind | None = None) -> list[float]:
    """About `count` round numbers from `low` to `high`: 1, 2 or 5 times a power of ten; of bytes,
    a power of two."""
    if not high > low:
        return [low]
    wanted = (high - low) / max(1, count)
    step = 2.0 ** math.ceil(math.log2(wanted)) if kind == "bytes" else _round_step(wanted)
    return _multiples(low, high, step)


def time_ticks(high: float, count: int) -> list[float]:
    """Round times from 0 to `high`, in seconds."""
    wanted = high / max(1, count)
    steps = [step for step in _TIMES if step >= wanted]
    step = steps[0] if steps else 86400 * max(1.0, _round_step(wanted / 86400))
    return _multiples(0.0, high, _round_step(wanted) if wanted < 1 else step)


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten from `low` to `high` (both above 0), with 2 and 5 times them or round numbers
    between where these are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first <= 3:
        tens = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
        found = [ten for ten in tens if low <= ten <= high]
        return found if len(found) >= 3 else ticks(low, high, count)
    # Those outside are left out first: round numbers between would all lie at the upper end.
    inside = [power for power in range(first, last + 1) if low <= 10.0**power <= high]
    stride = max(1, math.ceil((len(inside) - 1) / max(1, count)))
    return [10.0**power for power in inside[::stride]]


def _round_step(wanted: float) -> float:
    power = 10.0 ** math.floor(math.log10(wanted)) if wanted > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted * _AT_LEAST)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def written(value: float, kind: Kind, *, tick: bool = False) -> str:
    """`2.400`, `0.0004`, `4e-5`, `16.5k`, `1.5 GiB`, `45%`; at a `tick` of an axis `2.4`."""
    if kind == "bytes":
        return _bytes(value)
    if kind == "share":
        return _short(100 * value, 3) + "%"
    if kind == "percent":
        return _short(value, 3) + "%"
    if kind == "rate" or abs(value) >= 1e5:
        return _scaled(value)
    # As many digits for each, so that losses below each other compare at a glance.
    return f"{value:#.4g}" if not tick and abs(value) >= 0.01 else _short(value, 4)


def elapsed(seconds: float) -> str:
    """`8s`, `3m12s`, `2h05m`, `4d03h`: two units at most, and the second only where it is not
    zero, as on an axis."""
    whole = round(seconds)
    if seconds < 10 and whole != seconds:
        return f"{seconds:.2g}s"
    for unit, below, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= size:
            rest = whole % size * (60 if size < 86400 else 24) // size
            return f"{whole // size}{unit}" + (f"{rest:02d}{below}" if rest else "")
    return f"{whole}s"


def _scaled(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return _short(value / size, 3) + unit
    return _short(value, 3)


def _bytes(value: float) -> str:
    for size, unit in ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if abs(value) >= size:
            return f"{_short(value / size, 3)} {unit}"
    return f"{_short(value, 3)} B"


def _short(value: float, digits: int) -> str:
    """Significant digits, without an exponent where that is not longer."""
    text = f"{value:.{digits}g}"
    if "e+" in text:
        text = f"{value:.0f}" if abs(value) < 10**7 else text
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
