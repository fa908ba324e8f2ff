"""The plain path of `ptx logs`: everything that the ranks printed, merged at the speed of `sort`.

What a block of a log needs is done to all of it at once: the marks become prefixes, and one split
gives times and shown lines in turn. list.sort() of the lines by the times merges the logs. Only
blocks with something unusual in them go line by line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, cast

from orchestrator.logs.line import STAMP, TEXT, Entry, parse
from orchestrator.logs.reader import LogReader
from orchestrator.logs.text import TextLines

BUDGET = 4 * 1024 * 1024
"""Bytes of log text at hand, over all sources."""
_SMALLEST, _LARGEST = 16 * 1024, 512 * 1024
_TIME = STAMP - 1
_END = "\x1f"
"""Ends a time; no text that is fit for a terminal holds it."""
_KEY = _TIME + 1
_SAFE = bytes(range(0x20, 0x7F)) + b"\t\n"
_OUT, _ERR = re.compile(rb"Z o "), re.compile(rb"Z e ")
"""re finds these in half the time of bytes.replace."""

Lines = tuple[list[str], list[str]]
"""Times, in order, and what is shown for each."""


class Source(Protocol):
    def read(self, size: int, /) -> Lines | None:
        """Lines of about `size` bytes; None at the end."""


class FileSource:
    """One rank's log; with `until`, its lines before that stamp."""

    def __init__(self, reader: LogReader, lines: TextLines, until: str | None = None) -> None:
        self.reader = reader
        self._lines = lines
        self._until = until
        self._out, self._err = (
            f"{_END}\n{lines.prefix(mark, reader.source)}".encode() for mark in "oe"
        )
        self._both = False
        """Whether stderr was met."""
        self._ended = False

    def read(self, size: int, /) -> Lines | None:
        if self._ended:
            return None
        data = self.reader.peek(size)
        if data and self.reader.is_plain and (found := self._whole_block(data)) is not None:
            return found
        return self._composed(self._careful(data, size))

    def _whole_block(self, data: bytes) -> Lines | None:
        """None where it is not all stamped, whole, in order and fit for a terminal as it is."""
        if not data.endswith(b"\n"):
            return None
        is_last = False
        if self._until is not None and (size := _size_before(data, self._until)) < len(data):
            if not size or parse(data[size : size + TEXT].decode("ascii", "replace")) is None:
                return None
            data, is_last = data[:size], True
        if not data.isascii() or data.translate(None, _SAFE):
            return None
        found = self._split(data)
        if found is None and not self._both:
            self._both = True
            found = self._split(data)
        if found is None:
            return None
        keys = found[0]
        # What lies in order between two that begin with a digit begins with a digit.
        if not (keys[0][0].isdigit() and keys[-1][0].isdigit() and keys == sorted(keys)):
            return None
        if not self.reader.took(data, f"{keys[0][:_TIME]}Z", f"{keys[-1][:_TIME]}Z"):
            return None
        self._ended = is_last
        return found

    def _split(self, data: bytes) -> Lines | None:
        text = self._out.join(_OUT.split(data))
        if self._both:
            text = self._err.join(_ERR.split(text))
        pieces = text[:-1].decode("ascii").split("\n")
        keys, shown = pieces[::2], pieces[1::2]
        # Each piece holds one _END at most, and that at its end: so each key is _KEY long.
        together = "".join(keys)
        ends = together[_TIME::_KEY]
        whole = len(keys) == len(shown) and len(together) == _KEY * len(keys)
        return (keys, shown) if whole and ends == _END * len(keys) else None

    def _careful(self, data: bytes, size: int) -> Sequence[Entry]:
        until, reader = self._until, self.reader
        if until is not None:
            before = reader.before(data, until) if data else 0
            if before < len(data) or (not data and not reader.torn_before(until)):
                self._ended = True
                return (reader.read(before) or ()) if before else ()
        entries = reader.read(size)
        if entries is None:
            self._ended = True
            return reader.finish()
        return entries

    def _composed(self, entries: Sequence[Entry]) -> Lines:
        render, source = self._lines.render_text, self.reader.source
        return (
            [f"{stamp[:_TIME]}{_END}" for stamp, _, _ in entries],
            [render(line[STAMP + 1], source, line[TEXT:]) for _, _, line in entries],
        )


def merge_composed(sources: Sequence[Source], budget: int = BUDGET) -> Iterator[str]:
    """The lines of all sources in time order, many at once, each with its newline; those of one
    keep their order."""
    size = min(_LARGEST, max(_SMALLEST, budget // max(1, len(sources))))
    runs = [_Run(source, size) for source in sources]
    while runs:
        for run in runs:
            run.fill()
        lasts = [run.keys[-1] for run in runs if not run.ended]
        horizon = min(lasts) if lasts else None
        keys: list[str] = []
        shown: list[str] = []
        for run in runs:
            run.take(horizon, keys, shown)
        runs = [run for run in runs if not run.spent]
        if shown:
            # sort() asks for the key of each line once, in their order.
            shown.sort(key=cast("Callable[[str], str]", partial(next, iter(keys))))
            shown.append("")
            yield "\n".join(shown)


class _Run:
    """The lines of one source that were read and not yet given out."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._size = size
        self._next = self._enough = 0
        self._shown: list[str] = []
        self.keys: list[str] = []
        self.ended = False

    @property
    def spent(self) -> bool:
        return self.ended and self._next == len(self.keys)

    def fill(self) -> None:
        while not self.ended and len(self.keys) - self._next <= self._enough:
            more = self._source.read(self._size)
            if more is None:
                self.ended = True
                return
            keys, shown = more
            self.keys = self.keys[self._next :] + keys
            self._shown = self._shown[self._next :] + shown
            self._next, self._enough = 0, len(keys) // 2

    def take(self, horizon: str | None, keys: list[str], shown: list[str]) -> None:
        """Onto `keys` and `shown`: the lines up to the horizon, included."""
        start = self._next
        self._next = (
            len(self.keys) if horizon is None else bisect_right(self.keys, horizon, lo=start)
        )
        keys += self.keys[start : self._next]
        shown += self._shown[start : self._next]


def _size_before(data: bytes, until: str) -> int:
    """Bytes of the lines before the first one stamped `until` or later, if they are in order."""
    stamp = until.encode()
    last = data.rfind(b"\n", 0, -1) + 1
    if data[last : last + STAMP] < stamp:
        return len(data)
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        begin = max(low, data.rfind(b"\n", low, middle) + 1)
        if data[begin : begin + STAMP] < stamp:
            low = data.find(b"\n", begin) + 1
        else:
            high = begin
    return low
