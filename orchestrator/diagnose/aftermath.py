"""Whether a rank ended by the last exception in its log, or logged it and went on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from orchestrator.agent.progress import complains, is_progress, speaks_of_progress
from orchestrator.diagnose.tail import Tail
from orchestrator.logs.level import Level, level_of

LAST_WORDS = 10.0
"""Of a rank that left without an exception only what it said so many seconds before counts: what
it said earlier it has survived."""
_APART = 1.0
"""Seconds: lines so far apart are no single flush of a buffer at the end."""
_UNCAUGHT = 1
"""What Python exits with for an exception that nobody caught."""


@dataclass(frozen=True)
class Survived:
    """An exception that a rank outlived."""

    index: int | None
    """Which line of the log's tail it is; None where it stands before that."""
    text: str
    lines: int
    """That the rank printed after it."""
    seconds: float
    """Between it and the rank's end."""


def survived(tail: Tail, exception: str, code: int | None, ended: float) -> Survived | None:
    """The last `exception` in the log, if the rank went on after it; None where it ended by it,
    as far as anybody can tell. `ended` in epoch seconds by its node's clock."""
    index = tail.last_exception()
    if index is None and not tail.offset:
        return None
    after = range(0 if index is None else index + 1, len(tail.lines))
    begun = moment(tail, after.start if index is None else index)
    if begun is None:
        return None
    moments = [t for t in _progress(tail, after) if t > begun]
    if code is not None and _UNCAUGHT < code < 128:
        later = len(moments) > 1 or any(t > begun + _APART for t in moments)
        went_on = later or ended - begun > LAST_WORDS
    else:  # what was printed at once, at the very end, may have lain in a buffer
        last = max((t for i in after if (t := moment(tail, i)) is not None), default=begun)
        went_on = any(begun + _APART < t < last - _APART for t in moments)
    if not went_on:
        return None
    text = exception.split("\n", 1)[0] if index is None else tail.lines[index]
    spoken = sum(bool(tail.lines[i].strip()) for i in after)
    return Survived(index, text, spoken, max(0.0, ended - begun))


def may_explain(line: str, *, on_stdout: bool) -> bool:
    """Whether the last line of a rank that left without an exception may be its word on why. What
    bears no level on stderr may be, as what `sys.exit("text")` prints is."""
    if is_progress(line):
        return False
    level = level_of(line)
    if level is Level.ERROR or complains(line):
        return True
    return level is None and not on_stdout


def _progress(tail: Tail, after: range) -> Iterator[float]:
    """When it reported progress."""
    for index in after:
        if speaks_of_progress(tail.lines[index]) and (t := moment(tail, index)) is not None:
            yield t


def moment(tail: Tail, index: int) -> float | None:
    """When a line was printed, in epoch seconds; None where nobody knows."""
    stamp = tail.times[index] if index < len(tail.times) else ""
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None
