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
        self._last = time.monotonic()

    def add(self, file: T) -> None:
        self._hot[id(file)] = file, self._last

    def drop(self, which: Callable[[T], bool]) -> list[T]:
        """Those that are looked at no more."""
        hot = {key: file for key, (file, _) in self._hot.items() if which(file)}
        for key in hot:
            del self._hot[key]
        dropped = [file for file in self._resting if which(file)]
        self._resting = deque(file for file in self._resting if not which(file))
        return [*hot.values(), *dropped]

    def turn(self, *, everywhere: bool = False) -> None:
        """One round of looks; at all of them where asked."""
        begun = time.monotonic()
        for key, (file, grown) in list(self._hot.items()):
            if self._look(file, begun):
                self._hot[key] = file, begun
            elif begun - grown > HOT:
                del self._hot[key]
                self._resting.append(file)
        budget = time.monotonic() + SHARE * (begun - self._last)
        self._last = begun
        for _ in range(len(self._resting)):
            file = self._resting.popleft()
            if self._look(file, begun):
                self._hot[id(file)] = file, begun
            else:
                self._resting.append(file)
            if not everywhere and time.monotonic() > budget:
                return
