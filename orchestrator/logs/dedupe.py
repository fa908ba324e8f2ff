"""A line that many ranks printed, shown once: numbers and addresses in it notwithstanding.

The n-th time that a rank prints such a line belongs with the n-th time of the others, so the
lines of a rank's own progress stay apart. Groups are kept for a window of time, and so many.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.logs.line import TEXT, Entry
from orchestrator.logs.screen import plain
from orchestrator.logs.select import RankLog
from orchestrator.logs.skew import Shift

WINDOW = 5.0
"""Seconds of log time in which the other ranks' lines count as the same."""
MOST = 10_000
"""Groups at hand; the oldest are shown sooner where there are more."""
_LONGEST = 2000
"""Characters of a line that are compared."""

_VARIABLE = re.compile(
    r"0[xX][0-9a-fA-F]+"
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b(?=[a-f]*\d)(?:[0-9a-f]{7,})\b"
    r"|[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?"
)


class Folded(NamedTuple):
    entry: Entry
    """The first of them."""
    ranks: tuple[int, ...]
    """Who printed it, in order."""


@dataclass
class _Group:
    entry: Entry
    key: tuple[str, int]
    arrived: float
    ranks: set[int] = field(default_factory=set)


@dataclass
class _Open:
    """The groups of one form that are kept, and which of them each rank's next line joins."""

    groups: deque[_Group] = field(default_factory=deque)
    released: int = 0
    _next: dict[int, int] = field(default_factory=dict)

    def joined(self, rank: int) -> _Group | None:
        """The group with this rank in it; None where that is a new one, which is appended."""
        place = max(self._next.get(rank, 0), self.released)
        self._next[rank] = place + 1
        if place - self.released == len(self.groups):
            return None
        group = self.groups[place - self.released]
        group.ranks.add(rank)
        return group


class Dedupe:
    """Entries in time order in, groups in the order of their first lines out."""

    def __init__(self, logs: Sequence[RankLog]) -> None:
        self._logs = logs
        self._waiting: deque[_Group] = deque()
        self._open: dict[tuple[str, int], _Open] = {}
        self._until = _Limit()

    def feed(self, entries: Sequence[Entry], now: float = 0.0) -> list[Folded]:
        """What is settled, as its window has passed. `now`: when they arrived, on any clock."""
        settled: list[Folded] = []
        for entry in entries:
            while self._waiting and (
                len(self._waiting) >= MOST or self._until(self._waiting[0].entry[0]) < entry[0]
            ):
                settled.append(self._release())
            self._add(entry, now)
        return settled

    def fold(self, batches: Iterable[Sequence[Entry]]) -> Iterator[list[Folded]]:
        """All of it, to the last group."""
        yield from map(self.feed, batches)
        yield self.finish()

    def settle(self, before: float) -> list[Folded]:
        """Groups whose first line arrived before then."""
        settled = []
        while self._waiting and self._waiting[0].arrived < before:
            settled.append(self._release())
        return settled

    def finish(self) -> list[Folded]:
        return [self._release() for _ in range(len(self._waiting))]

    def _add(self, entry: Entry, now: float) -> None:
        log = self._logs[entry[1]]
        key = form(entry[2][TEXT:]), log.attempt
        open_ = self._open.setdefault(key, _Open())
        group = open_.joined(log.rank)
        if group is None:
            group = _Group(entry, key, now, {log.rank})
            open_.groups.append(group)
            self._waiting.append(group)

    def _release(self) -> Folded:
        group = self._waiting.popleft()
        open_ = self._open[group.key]
        open_.groups.popleft()
        open_.released += 1
        if not open_.groups:
            del self._open[group.key]
        return Folded(group.entry, tuple(sorted(group.ranks)))


class _Limit:
    """The end of a line's window; neighbours share their stamps."""

    def __init__(self) -> None:
        self._later = Shift(-WINDOW)
        self._stamp = self._limit = ""

    def __call__(self, stamp: str) -> str:
        if stamp != self._stamp:
            self._stamp, self._limit = stamp, self._later(stamp)
        return self._limit


def form(text: str) -> str:
    """What is left of a line when its numbers and addresses are taken out."""
    return _VARIABLE.sub("#", plain(text[:_LONGEST]).strip())
