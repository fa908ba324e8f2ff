"""The files of one rank's log on disk: a new one when it is full, the oldest gone at the cap.

Their names are those of orchestrator/logs/discovery.py: `rank-00000.log`, `rank-00000.0001.log`.
"""

from __future__ import annotations

import contextlib
import os
import re

from orchestrator.agent.log_limits import Limits


class LogParts:
    """Which part is written now, and how large all of them are."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.first = path
        """The one that is always there."""
        self._limits = limits
        self._sizes = _sizes(path) if limits.part is not None else {}
        self._number = max(self._sizes, default=0)
        self._total = 0
        self.dropped_bytes = 0

    @property
    def path(self) -> str:
        return self._path(self._number)

    def begun(self, size: int) -> None:
        """The present part was opened and holds so many bytes."""
        self._sizes[self._number] = size
        self._total = sum(self._sizes.values())

    def grown(self, size: int) -> bool:
        """By so many bytes; True where it is full now."""
        self._sizes[self._number] = self._sizes.get(self._number, 0) + size
        self._total += size
        if self._limits.most is not None and self._total > self._limits.most:
            self._drop(self._limits.most)
        return self._limits.part is not None and self._sizes[self._number] >= self._limits.part

    def turn(self) -> None:
        """To the next part."""
        self._number += 1
        self._sizes[self._number] = 0

    def _drop(self, most: int) -> None:
        """The oldest ones but the first, which says how all began. Not before their room is needed:
        where the cap is three parts, that is all of the newest output when a part has just begun.
        """
        for number in sorted(self._sizes)[1:-1]:
            if self._total <= most:
                return
            with contextlib.suppress(OSError):
                os.unlink(self._path(number))  # noqa: PTH108 - see the package's docstring
            size = self._sizes.pop(number)
            self._total -= size
            self.dropped_bytes += size

    def _path(self, number: int) -> str:
        return f"{self.first[: -len('.log')]}.{number:04d}.log" if number else self.first


def _sizes(first: str) -> dict[int, int]:
    """Of parts that an earlier shim of this rank has left."""
    folder, _, name = first.rpartition("/")
    mine = re.compile(rf"{re.escape(name[: -len('.log')])}(?:\.(\d{{4,9}}))?\.log")
    sizes = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = mine.fullmatch(entry.name)
            if found:
                sizes[int(found[1] or 0)] = entry.stat().st_size
    return sizes
