"""The plain path of `ptx logs`: everything that the ranks printed, merged faster than by `sort`.

A round takes of each log the lines up to the earliest time at which one of them was read to;
numpy sorts them all at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from orchestrator.logs.columns import Columns
from orchestrator.logs.labelled import Labelled, Taken

BUDGET = 8 * 1024 * 1024
"""Bytes of log text at hand, over all sources, as a rule: there may be thousands."""
_SMALLEST, _LARGEST = 8 * 1024, 512 * 1024
_FEW, _ENOUGH = 16, 64 * 1024
"""Where a block of less than so many bytes holds less than so many lines, the next is larger."""


class Source(Protocol):
    @property
    def labels(self) -> tuple[bytes, bytes]:
        """What stands before a line of stdout, and of stderr."""

    def read(self, size: int, /) -> Columns | None:
        """The next lines, of about `size` bytes; None at the end."""


def merge_composed(sources: Sequence[Source], budget: int = BUDGET) -> Iterator[memoryview]:
    """The lines of all sources in time order, many at once; those of one time in the order of
    sources, and those of one source in its own. What is yielded is good until the next."""
    size = min(_LARGEST, max(_SMALLEST, budget // max(1, len(sources))))
    runs = [_Run(source, size) for source in sources]
    labelled = Labelled()
    while runs:
        for run in runs:
            run.fill()
        # Nothing that is still unread can be earlier than the last line read of its own source.
        lasts = [(run.last, place) for place, run in enumerate(runs) if not run.ended]
        horizon, whose = min(lasts, default=(None, 0))
        taken: list[Taken] = []
        for place, run in enumerate(runs):
            taken += run.take(horizon, included=place <= whose)
        runs = [run for run in runs if not run.spent]
        if taken:
            yield labelled.merged(taken)


class _Run:
    """The lines of one source that were read and not yet given out."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._size = size
        self._parts: deque[Columns] = deque()
        self._next = 0
        """The first line of the first part that was not given out."""
        self._left = self._enough = 0
        self._first = 0
        """Key of that line."""
        self.last = 0
        """Key of the last line of the last part."""
        self.ended = False

    @property
    def spent(self) -> bool:
        return self.ended and not self._left

    def fill(self) -> None:
        """Read until half a part of lines is at hand.

        Waiting until none is left would give rounds of few lines where logs grow alike.
        """
        while not self.ended and self._left <= self._enough:
            part = self._source.read(self._size)
            if part is None:
                self.ended = True
                return
            if not self._left:
                self._first = part.first
            if len(part.keys) < _FEW:
                self._size = min(2 * self._size, max(self._size, _ENOUGH))
            self._parts.append(part)
            self._left += len(part.keys)
            self._enough = len(part.keys) // 2
            self.last = part.last

    def take(self, horizon: int | None, *, included: bool) -> Iterator[Taken]:
        """The lines up to the horizon; all where there is none."""
        # Of many logs most have no line for a round.
        before = None if horizon is None else horizon + included
        while self._left and (before is None or self._first < before):
            part, begin = self._parts[0], self._next
            end = len(part.keys)
            if before is not None and part.last >= before:
                end = int(np.searchsorted(part.keys, np.uint64(before)))
            yield Taken(part, begin, end, *self._source.labels)
            self._left -= end - begin
            self._next = end
            if end == len(part.keys):
                self._parts.popleft()
                self._next = 0
            if self._left:
                self._first = int(self._parts[0].keys[self._next])
