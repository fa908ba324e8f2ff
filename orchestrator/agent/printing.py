"""Whether the ranks of an attempt print, on whatever node."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_Printed = tuple[int, int]
"""Bytes in logs, and their times together: of a log on a full disk these alone change."""


class Printing:
    """For one agent alone, whatever the number of nodes: it reads for all of them.

    In most scripts rank 0 alone prints, and nobody can tell on which node that is.
    """

    def __init__(self, node_dir: Path, node: int, nodes: int) -> None:
        self._own = node_dir
        others = (number for number in range(nodes) if number != node)
        self._others = [node_dir.with_name(f"node-{number:04d}") for number in others]
        self._seen: dict[Path, _Printed] = {}
        self._witness: Path | None = None

    @property
    def begun(self) -> bool:
        """Whether a rank has said anything yet."""
        return any(size for size, _ in self._seen.values())

    def grown(self, *, everywhere: bool) -> bool:
        """Whether more was printed since the last look; on other nodes too where `everywhere` is
        said. The node that was the one to print is asked first."""
        if self._has_grown(self._own):
            return True
        if not everywhere:
            return False
        if self._witness is not None and self._has_grown(self._witness):
            return True
        grown = [folder for folder in self._others if self._has_grown(folder)]
        self._witness = grown[0] if grown else self._witness
        return bool(grown)

    def _has_grown(self, folder: Path) -> bool:
        printed = _printed(folder, afar=folder != self._own)
        before, self._seen[folder] = self._seen.get(folder), printed
        return printed != before if before else printed[0] > 0


def _printed(folder: Path, *, afar: bool) -> _Printed:
    """Of the logs of a node's ranks."""
    size = times = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("rank-") and ".log" in entry.name:
                found = _stat_from_afar(entry.path) if afar else entry.stat()
                size, times = size + found.st_size, times + found.st_mtime_ns
    return size, times


def _stat_from_afar(path: str) -> os.stat_result:
    """NFS shows what another machine has written only to who opens the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
