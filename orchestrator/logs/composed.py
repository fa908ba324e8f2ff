"""The plain path of `ptx logs`: everything that the ranks printed, merged at the speed of `sort`.

Lines are composed as `<time without its Z>\\x1f[rank node] text`, so that sorting whole lines sorts
by time, and cutting a fixed width leaves what is shown. What a block of a log needs for that is
done to all of it at once; only blocks with something unusual in them go line by line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Protocol

from orchestrator.logs.line import STAMP, TEXT, Entry
from orchestrator.logs.reader import LogReader
from orchestrator.logs.text import TextLines

BUDGET = 2 * 1024 * 1024
"""Bytes of log text at hand, over all sources."""
SENTINEL = "\x1f"
"""Ends the time; no text that is fit for a terminal holds it."""
_SMALLEST, _LARGEST = 16 * 1024, 512 * 1024
_TIME = STAMP - 1
_SAFE = bytes(range(0x20, 0x7F)) + b"\t\n"
_time = itemgetter(slice(0, _TIME))
_mark = itemgetter(slice(_TIME, TEXT))
_shown = itemgetter(slice(_TIME + 1, None))


class Source(Protocol):
    def read(self, size: int, /) -> list[str] | None:
        """Composed lines of about `size` bytes, ordered by time; None at the end."""


class FileSource:
    """One rank's log."""

    def __init__(self, reader: LogReader, lines: TextLines) -> None:
        self._reader = reader
        self._lines = lines
        self._heads = {
            f"Z {mark} ": f"{SENTINEL}{lines.prefix(mark, reader.source)}" for mark in "oe"
        }
        self._ended = False

    def read(self, size: int, /) -> list[str] | None:
        if self._ended:
            return None
        if (found := self._whole_block(size)) is not None:
            return found
        entries = self._reader.read(size)
        if entries is None:
            self._ended = True
            entries = self._reader.finish()
        return self._composed(entries)

    def _whole_block(self, size: int) -> list[str] | None:
        """None where it is not all stamped, whole, in order and fit for a terminal as it is."""
        data = self._reader.peek(size)
        if not data.endswith(b"\n") or not data.isascii() or data.translate(None, _SAFE):
            return None
        lines = data[:-1].decode("ascii").split("\n")
        marks = set(map(_mark, lines))
        if not marks <= self._heads.keys() or not _ordered(lines):
            return None
        first, last = lines[0][:STAMP], lines[-1][:STAMP]
        # What lies in order between two that begin with a digit begins with a digit.
        if not (first[0].isdigit() and last[0].isdigit() and self._reader.took(data, first, last)):
            return None
        heads = self._heads
        if len(marks) == 1:
            head = heads[marks.pop()]
            return [f"{line[:_TIME]}{head}{line[TEXT:]}" for line in lines]
        return [f"{line[:_TIME]}{heads[line[_TIME:TEXT]]}{line[TEXT:]}" for line in lines]

    def _composed(self, entries: Sequence[Entry]) -> list[str]:
        render, source = self._lines.render_text, self._reader.source
        return [
            f"{stamp[:_TIME]}{SENTINEL}{render(line[STAMP + 1], source, line[TEXT:])}"
            for stamp, _, line in entries
        ]


def merge_composed(sources: Sequence[Source], budget: int = BUDGET) -> Iterator[list[str]]:
    """Composed lines of all sources in time order, in batches; those of one keep their order."""
    size = min(_LARGEST, max(_SMALLEST, budget // max(1, len(sources))))
    runs = [_Run(source, size) for source in sources]
    while runs:
        for run in runs:
            run.fill()
        lasts = [run.lines[-1] for run in runs if not run.ended]
        # Above every line of that time, below all later ones.
        horizon = f"{min(lasts)[:_TIME]} " if lasts else None
        batch: list[str] = []
        by_line = True
        for run in runs:
            batch += run.take(horizon)
            by_line = by_line and run.by_line
        runs = [run for run in runs if not run.spent]
        # Comparing whole lines needs no keys, but may exchange two of one time and one source.
        if by_line:
            batch.sort()
        else:
            batch.sort(key=_time)
        if batch:
            yield batch


def shown(batch: list[str]) -> str:
    """A batch as it is printed."""
    return "\n".join(map(_shown, batch)) + "\n"


class _Run:
    """The lines of one source that were read and not yet given out."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._size = size
        self._next = self._enough = 0
        self.lines: list[str] = []
        self.ended = False
        self.by_line = True
        """Whether they are in order as whole lines, too."""

    @property
    def spent(self) -> bool:
        return self.ended and self._next == len(self.lines)

    def fill(self) -> None:
        while not self.ended and len(self.lines) - self._next <= self._enough:
            more = self._source.read(self._size)
            if more is None:
                self.ended = True
                return
            if self._next == len(self.lines):
                self.lines, self.by_line = more, True
            else:
                self.lines = self.lines[self._next :] + more
            self.by_line = self.by_line and self.lines == sorted(self.lines)
            self._next, self._enough = 0, len(more) // 2

    def take(self, horizon: str | None) -> list[str]:
        start = self._next
        self._next = (
            len(self.lines) if horizon is None else bisect_right(self.lines, horizon, lo=start)
        )
        return self.lines[start : self._next]


def _ordered(lines: list[str]) -> bool:
    """By time."""
    if lines == sorted(lines):
        return True
    times = list(map(_time, lines))
    return times == sorted(times)
