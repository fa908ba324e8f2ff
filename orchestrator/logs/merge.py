"""Many rank logs as one, in time order, with bounded memory.

Sorting blocks with list.sort() is more than twice as fast as heapq.merge: timsort finds the
sorted run of each file and merges the runs in C.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter

from orchestrator.logs.line import Entry
from orchestrator.logs.reader import LogReader

BUDGET = 4 * 1024 * 1024
"""Bytes of log text at hand, over all files; as Python objects it is twelve times that."""

_SMALLEST, _LARGEST = 16 * 1024, 512 * 1024
_stamp = itemgetter(0)


def merge(
    readers: Sequence[LogReader], *, finish: bool = True, budget: int = BUDGET
) -> Iterator[list[Entry]]:
    """Entries of all readers up to the present end of each file, in batches, in time order; those
    of one time in the order of readers.

    Lines of one file keep their order, whatever their stamps. Without `finish`, lines that are
    not whole yet stay with their readers, and a follower can go on from there. Raises UserError
    for a file that cannot be read.
    """
    size = min(_LARGEST, max(_SMALLEST, budget // max(1, len(readers))))
    runs = [_Run(reader, size, finish) for reader in readers]
    while runs:
        for run in runs:
            run.fill()
        # Nothing that is still unread can be earlier than the last line read of its own file.
        lasts = [(run.last, place) for place, run in enumerate(runs) if not run.ended]
        horizon, whose = min(lasts, default=(None, 0))
        batch: list[Entry] = []
        for place, run in enumerate(runs):
            batch += run.take(horizon, included=place <= whose)
        runs = [run for run in runs if not run.spent]
        batch.sort(key=_stamp)
        if batch:
            yield batch


class _Run:
    """The lines of one file that were read and not yet given out."""

    def __init__(self, reader: LogReader, size: int, finish: bool) -> None:
        self._reader = reader
        self._size = size
        self._finish = finish
        self._entries: list[Entry] = []
        self._next = 0
        self._enough = 0
        self.ended = False

    @property
    def last(self) -> str:
        return self._entries[-1][0]

    @property
    def spent(self) -> bool:
        return self.ended and self._next == len(self._entries)

    def fill(self) -> None:
        """Read until half a block of lines is at hand.

        Waiting until none is left would give rounds of few lines where files grow alike.
        """
        while not self.ended and len(self._entries) - self._next <= self._enough:
            more = self._reader.read(self._size)
            if more is None:
                self.ended = True
                more = self._reader.finish() if self._finish else []
            self._entries = self._entries[self._next :] + more
            self._next = 0
            self._enough = len(more) // 2

    def take(self, horizon: str | None, *, included: bool) -> list[Entry]:
        """Entries up to the horizon; all where there is none."""
        start = self._next
        if horizon is None:
            self._next = len(self._entries)
        elif start < len(self._entries) and self._entries[start][0] <= horizon:
            bisect = bisect_right if included else bisect_left
            self._next = bisect(self._entries, horizon, lo=start, key=_stamp)
        return self._entries[start : self._next]
