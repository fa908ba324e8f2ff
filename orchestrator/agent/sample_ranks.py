"""Memory and CPU of each rank of this node, with all that it has started."""

from __future__ import annotations

import os
import time
from typing import Any

from orchestrator.agent.ending import SHIM
from orchestrator.agent.processes import Process, descendants, environment_value, process_table

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY = 6
"""Samples between two looks for new processes: /proc is read through for that."""
_IMPATIENT = 24
"""Samples during which ranks that are missing are looked for each time."""


class Ranks:
    """The ranks below an agent, found by their shims."""

    def __init__(self, agent: int, expected: int) -> None:
        self._agent, self._expected = agent, expected
        self._trees: dict[int, list[Process]] = {}
        self._before: dict[int, tuple[float, float]] = {}
        self._count = 0
        self.local: dict[int, int] = {}
        """Rank to local rank."""

    def sample(self) -> list[dict[str, Any]]:
        """In the order of ranks; `cpu` in cores since the last sample, `rss` in bytes, in which
        memory that processes share is counted once."""
        missing = len(self._trees) < self._expected and self._count < _IMPATIENT
        if missing or self._count % _EVERY == 0:
            self._look()
        self._count += 1
        found = []
        for rank in sorted(self._trees):
            row = self._rank(rank)
            if row is not None:
                found.append(row)
        return found

    def _look(self) -> None:
        table = process_table()
        self._trees = {}
        for process in descendants(self._agent, table):
            if process.name != SHIM:
                continue
            rank = environment_value(process.pid, "RANK") or ""
            local = environment_value(process.pid, "LOCAL_RANK") or ""
            if rank.isdigit():
                self._trees[int(rank)] = descendants(process.pid, table)
                if local.isdigit():
                    self.local[int(rank)] = int(local)

    def _rank(self, rank: int) -> dict[str, Any] | None:
        """None where nothing of it is left."""
        pages, seconds, living = 0, 0.0, 0
        for process in self._trees[rank]:
            seen = _use(process)
            if seen is not None:
                living += 1
                seconds += seen[0]
                pages += seen[1] if living == 1 else seen[2]
        if not living:
            return None
        now = time.monotonic()
        before = self._before.get(rank)
        self._before[rank] = (now, seconds)
        cpu = None
        if before is not None and now > before[0]:
            cpu = round(max(0.0, seconds - before[1]) / (now - before[0]), 2)
        return {"rank": rank, "rss": pages * _PAGE, "cpu": cpu}


def _use(process: Process) -> tuple[float, int, int] | None:
    """CPU seconds with those of children that have ended, resident pages, and those of them that
    are the process's alone. None where it is gone, or the pid another's."""
    try:
        with open(f"/proc/{process.pid}/stat", "rb") as file:  # noqa: PTH123 - often
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{process.pid}/statm", "rb") as file:  # noqa: PTH123 - often
            pages = [int(word) for word in file.read().split()]
    except OSError:
        return None
    if len(fields) < 20 or int(fields[19]) != process.start or len(pages) < 3:
        return None
    return sum(map(int, fields[11:15])) / _TICKS, pages[1], max(0, pages[1] - pages[2])
