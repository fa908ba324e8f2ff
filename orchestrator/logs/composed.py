"""The plain path of `ptx logs`: everything that the ranks printed, merged at the speed of `sort`.

list.sort() of the lines by their times merges the logs. As many lines are at hand as fit into the
processor's cache, which is worth more than fewer rounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, cast

from orchestrator.logs.source import Lines
from orchestrator.logs.times import minute_of, numbers

BUDGET = 1024 * 1024
"""Bytes of log text at hand as lines, over all sources."""
_SMALLEST, _LARGEST = 8 * 1024, 64 * 1024
_AHEAD = 8
"""Times that much is read and prepared at once, as long as all of it is below _MOST_AHEAD."""
_MOST_AHEAD = 12 * 1024 * 1024


class Source(Protocol):
    def read(self, size: int, block: int, /) -> Lines | None:
        """Lines of about `size` bytes, out of blocks of `block`; None at the end."""


def merge_composed(sources: Sequence[Source], budget: int = BUDGET) -> Iterator[bytes]:
    """The lines of all sources in time order, many at once; those of one time in the order of
    sources, and those of one source in its own."""
    count = max(1, len(sources))
    size = min(_LARGEST, max(_SMALLEST, budget // count))
    block = max(size, min(size * _AHEAD, _MOST_AHEAD // count))
    runs = [_Run(source, size, block) for source in sources]
    horizon: bytes | None = None
    while runs:
        for run in runs:
            run.fill()
        # Nothing that is still unread can be earlier than the last line read of its own source.
        lasts = [(run.last, place) for place, run in enumerate(runs) if not run.ended]
        passed, (horizon, whose) = horizon, min(lasts, default=(None, 0))
        times: list[bytes] = []
        shown: list[bytes] = []
        for place, run in enumerate(runs):
            run.take(horizon, times, shown, included=place <= whose)
        runs = [run for run in runs if not run.spent]
        if shown:
            is_short = passed and horizon and minute_of(passed) == minute_of(horizon)
            keys = iter(numbers(times) if is_short else times)
            # sort() asks for the key of each line once, in their order.
            shown.sort(key=cast("Callable[[bytes], Any]", partial(next, keys)))
            yield b"".join(shown)


class _Run:
    """The lines of one source that were read and not yet given out."""

    def __init__(self, source: Source, size: int, block: int) -> None:
        self._source = source
        self._sizes = size, block
        self._parts: deque[Lines] = deque()
        self._next = 0
        """The first line of the first part that was not given out."""
        self._left = self._enough = 0
        self.ended = False

    @property
    def last(self) -> bytes:
        return self._parts[-1][0][-1]

    @property
    def spent(self) -> bool:
        return self.ended and not self._left

    def fill(self) -> None:
        """Read until half a part of lines is at hand.

        Waiting until none is left would give rounds of few lines where logs grow alike.
        """
        while not self.ended and self._left <= self._enough:
            part = self._source.read(*self._sizes)
            if part is None:
                self.ended = True
                return
            if count := len(part[0]):
                self._parts.append(part)
                self._left += count
            self._enough = count // 2

    def take(
        self, horizon: bytes | None, times: list[bytes], shown: list[bytes], *, included: bool
    ) -> None:
        """Onto `times` and `shown`: the lines up to the horizon; all where there is none."""
        bisect = bisect_right if included else bisect_left
        while self._parts:
            own, texts = self._parts[0]
            begin, end = self._next, len(own)
            if horizon is not None and own[-1] >= horizon:
                end = bisect(own, horizon, lo=begin)
            times += own[begin:end]
            shown += texts[begin:end]
            self._left -= end - begin
            if end < len(own):
                self._next = end
                return
            self._parts.popleft()
            self._next = 0
