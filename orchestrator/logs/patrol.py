"""Which of many files to look at now, without inotify: network filesystems have none.

What has just grown is looked at ten times a second. All others are looked at in turn, in a small
share of the time: on a local disk that is hundreds in every turn, so each is seen at once; where
a look is a question to a file server, the rounds take longer and the server has its peace.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

HOT = 5.0
"""Seconds for which a file that grew is looked at in every turn."""
SHARE = 0.05
"""Of the time, for looks at files that rest."""

T = TypeVar("T")


class Patrol(Generic[T]):
    """`look` is told a file and the time, and says whether it grew."""

    def __init__(self, look: Callable[[T, float], bool]) -> None:
        self._look = look
        self._resting: deque[T] = deque()
        self._hot: dict[int, tuple[T, float]] = {}
        self._retiring: set[int] = set()
        self._last = time.monotonic()
        self.retired: list[T] = []
        """Those that are looked at no more."""

    def add(self, file: T) -> None:
        self._hot[id(file)] = file, self._last

    def retire(self, which: Callable[[T], bool]) -> None:
        """Each of those is looked at once more, to its end, and then no more: since its last look
        it may have grown, and where looks are slow that was long ago."""
        files = (*(file for file, _ in self._hot.values()), *self._resting)
        self._retiring |= {id(file) for file in files if which(file)}

    def turn(self, *, everywhere: bool = False) -> None:
        """One round of looks; at all of them where asked."""
        begun = time.monotonic()
        for key, (file, grown) in list(self._hot.items()):
            if self._look(file, begun):
                self._hot[key] = file, begun
            elif self._retires(file):
                del self._hot[key]
            elif begun - grown > HOT:
                del self._hot[key]
                self._resting.append(file)
        budget = time.monotonic() + SHARE * (begun - self._last)
        self._last = begun
        for _ in range(len(self._resting)):
            file = self._resting.popleft()
            if self._look(file, begun):
                self._hot[id(file)] = file, begun
            elif not self._retires(file):
                self._resting.append(file)
            if not everywhere and time.monotonic() > budget:
                return

    def _retires(self, file: T) -> bool:
        """Of one that was found to grow no more."""
        if id(file) not in self._retiring:
            return False
        self._retiring.remove(id(file))
        self.retired.append(file)
        return True
