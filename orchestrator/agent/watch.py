"""Sees while a node runs that one of its ranks has failed, or its shim has vanished."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.agent.ending import SHIM
from orchestrator.agent.processes import (
    Process,
    descendants,
    environment_value,
    process_table,
)
from orchestrator.agent.ranks import code_of, read_record, told_to_end

_VANISHED_SECONDS = 2.0
"""A shim gone for so long has not been replaced by a launcher that restarts its ranks."""


class RankWatch:
    """`poll` costs one listing of the node folder; /proc is read only when a rank has started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shims: dict[int, Process] = {}
        self._gone: dict[int, float] = {}
        self._fine: set[int] = set()

    def poll(self, *, stopping: bool = False) -> bool:
        """Whether a rank has failed. `stopping`: the ranks were asked to end, and one that does
        has not."""
        try:
            names = {entry.name for entry in os.scandir(self._folder)}
        except OSError:
            return False  # somebody removed the run folder; the ranks go on
        started = _ranks(names, ".log")
        ended = _ranks(names, ".exit.json")
        self._fine &= ended  # a launcher that restarts a rank has its record removed
        for rank in ended - self._fine:
            record = read_record(self._folder / f"rank-{rank:05d}.exit.json")
            if record is not None and code_of(record) and not (stopping and told_to_end(record)):
                return True
            self._fine.add(rank)
        running = started - ended
        if any(not self._has_shim(rank) for rank in running):
            self._shims.update(shims_by_rank())
        return self._vanished(running)

    def all_fine(self, ranks: int) -> bool:
        """Whether so many had ended well at the last look, and none runs: all of the node."""
        return len(self._fine) >= ranks

    def _has_shim(self, rank: int) -> bool:
        return rank in self._shims and self._shims[rank].alive()

    def _vanished(self, running: set[int]) -> bool:
        """A shim killed with SIGKILL leaves no record, only its absence."""
        now = time.monotonic()
        gone = {rank for rank in running if not self._has_shim(rank)}
        self._gone = {rank: self._gone.get(rank, now) for rank in gone}
        return any(now - since >= _VANISHED_SECONDS for since in self._gone.values())


def shims_by_rank() -> dict[int, Process]:
    """The shims below this process that run now."""
    found = {}
    for process in descendants(os.getpid(), process_table()):
        if process.name == SHIM:
            rank = environment_value(process.pid, "RANK")
            if rank is not None and rank.isdigit():
                found[int(rank)] = process
    return found


def _ranks(names: set[str], ending: str) -> set[int]:
    return {
        int(number)
        for name in names
        if name.startswith("rank-") and name.endswith(ending)
        if (number := name[len("rank-") : -len(ending)]).isdigit()
    }
