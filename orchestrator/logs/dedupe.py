"""A line that many ranks printed, shown once: numbers and addresses in it notwithstanding.

The n-th time that a rank prints such a line belongs with the n-th time of the others, so the
lines of a rank's own progress stay apart. Groups are kept for a window of time, and so many.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
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


class Dedupe:
    """Entries in time order in, groups in the order of their first lines out."""

    def __init__(self, logs: Sequence[RankLog]) -> None:
        self._logs = logs
        self._waiting: deque[_Group] = deque()
        self._open: dict[tuple[str, int], deque[_Group]] = {}
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
        groups = self._open.setdefault(key, deque())
        for group in groups:
            if log.rank not in group.ranks:
                group.ranks.add(log.rank)
                return
        group = _Group(entry, key, now, {log.rank})
        groups.append(group)
        self._waiting.append(group)

    def _release(self) -> Folded:
        group = self._waiting.popleft()
        groups = self._open[group.key]
        groups.popleft()
        if not groups:
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
