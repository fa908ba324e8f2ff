"""The line at the bottom that shows how far training is. Pure: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.cli.output import duration
from orchestrator.metrics.tail import Progress

_BLOCKS = "▁▂▃▄▅▆▇█"
_TREND = 12
_BAR = 10
_WIDEST_BAR = 40
_CODES = {"cyan": "36", "green": "32", "dim": "2", "bold": "1"}


@dataclass(frozen=True)
class Style:
    colour: bool = False
    unicode: bool = True


@dataclass(frozen=True)
class _Part:
    text: str
    width: int
    """Columns on the screen; colours take none."""


def progress_bar(head: str, progress: Progress, now: float, width: int, style: Style) -> str:
    """At most `width` columns; what matters least goes first where there is little room.

    `head` says what the run is doing, `now` is in epoch seconds.
    """
    parts = _parts(progress, now, style)
    lead = _part(head, style, "cyan")
    # From the least important one on: trend, speed, bar, time left, step.
    for leave_out in ((), ("trend",), ("trend", "speed"), ("trend", "speed", "bar")):
        kept = {name: part for name, part in parts.items() if name not in leave_out}
        shown = [lead, *kept.values()]
        taken = sum(part.width for part in shown) + 2 * (len(shown) - 1)
        if taken <= width:
            if "bar" in kept and progress.step is not None and progress.steps:
                room = min(_WIDEST_BAR, _BAR + width - taken)
                kept["bar"] = _bar(progress.step / progress.steps, room, style)
            return "  ".join(part.text for part in [lead, *kept.values()])
    words = "  ".join([head, *(part for part in (_step(progress), _loss(progress)) if part)])
    return words[:width]


def progress_line(progress: Progress, now: float) -> str:
    """The same as one line of plain words, for a pipe or a file."""
    eta = progress.eta(now)
    parts = [
        "" if progress.step is None else f"step {_step(progress).removeprefix('step ')}",
        _percent(progress),
        _loss(progress),
        _speed(progress),
        "" if eta is None else f"ETA {duration(eta)}",
    ]
    return "  ".join(part for part in parts if part)


def trend(losses: Sequence[float], columns: int = _TREND) -> str:
    """A curve of at most `columns` characters, each the mean of its share of the losses."""
    if len(losses) < 2:
        return ""
    count = min(columns, len(losses))
    edges = [len(losses) * i // count for i in range(count + 1)]
    means = [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high <= low:
        return _BLOCKS[0] * count
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((mean - low) / (high - low) * top)] for mean in means)


def rate(per_second: float) -> str:
    """`950`, `12.3k`, `1.25M`: three digits."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        value = per_second / size
        if value >= 0.9995:
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{per_second:.0f}"


def _parts(progress: Progress, now: float, style: Style) -> dict[str, _Part]:
    """In the order in which they stand on the line."""
    parts: dict[str, _Part] = {}
    if _step(progress):
        parts["step"] = _part(_step(progress), style)
    if progress.step is not None and progress.steps:
        parts["bar"] = _bar(progress.step / progress.steps, _BAR, style)
        parts["percent"] = _part(_percent(progress), style)
    if _loss(progress):
        parts["loss"] = _part(_loss(progress), style, "bold")
    curve = trend(progress.losses) if style.unicode else ""
    if curve:
        parts["trend"] = _part(curve, style, "green")
    if _speed(progress):
        parts["speed"] = _part(_speed(progress), style)
    eta = progress.eta(now)
    if eta is not None:
        parts["eta"] = _part(f"ETA {duration(eta)}", style, "dim")
    return parts


def _bar(share: float, columns: int, style: Style) -> _Part:
    done = round(min(1.0, max(0.0, share)) * columns)
    full, empty = ("━", "─") if style.unicode else ("#", ".")
    return _Part(
        _painted(full * done, style, "green") + _painted(empty * (columns - done), style, "dim"),
        columns,
    )


def _step(progress: Progress) -> str:
    if progress.step is None:
        return ""
    return f"{progress.step}/{progress.steps}" if progress.steps else f"step {progress.step}"


def _percent(progress: Progress) -> str:
    if progress.step is None or not progress.steps:
        return ""
    return f"{min(100, 100 * progress.step // progress.steps)}%"


def _loss(progress: Progress) -> str:
    if progress.loss is None:
        return ""
    # Always as wide, so that the line does not twitch, unless that would show nothing.
    usual = 0.001 <= abs(progress.loss) < 1e5
    return f"loss {progress.loss:.4f}" if usual else f"loss {progress.loss:.3g}"


def _speed(progress: Progress) -> str:
    return "" if progress.tokens_per_s is None else f"{rate(progress.tokens_per_s)} tokens/s"


def _part(text: str, style: Style, colour: str | None = None) -> _Part:
    return _Part(_painted(text, style, colour), len(text))


def _painted(text: str, style: Style, colour: str | None) -> str:
    if not style.colour or colour is None or not text:
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"
