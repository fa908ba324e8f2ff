"""Which processes of this node belong to the run."""

from __future__ import annotations

import os

from orchestrator.agent.processes import (
    Process,
    ancestors,
    bearers,
    descendants,
    process_table,
)


def sweep_set(mark: str, since: int, *, besides: Process | None = None) -> list[Process]:
    """What this process has started, and what bears its mark though it got away.

    `since` (clock ticks since boot): nothing older can be of this attempt. `besides`: what this
    process ends by itself.
    """
    table = process_table()
    ours = {process.pid: process for process in descendants(os.getpid(), table)}
    young = [
        process for process in table.values() if process.start >= since and process.pid not in ours
    ]
    for process in bearers({mark}, young):
        ours[process.pid] = process
    for pid in ancestors(os.getpid(), table):
        ours.pop(pid, None)
    if besides is not None:
        ours.pop(besides.pid, None)
    return list(ours.values())
