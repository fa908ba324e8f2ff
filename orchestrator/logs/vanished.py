"""Logs that were deleted while they were read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.logs.discovery import names, ranks
from orchestrator.logs.numbers import spoken
from orchestrator.logs.select import RankLog


def vanished(logs: Iterable[RankLog]) -> list[RankLog]:
    """Those of which nothing is there any more: one listing a node. Raises UserError."""
    folders: defaultdict[Path, list[RankLog]] = defaultdict(list)
    for log in logs:
        folders[log.path.parent].append(log)
    gone = []
    for folder, there in folders.items():
        left = set(ranks(names(folder)))
        gone += [log for log in there if log.rank not in left]
    return gone


def sentence(logs: Sequence[RankLog]) -> str:
    """About some that vanished."""
    if len(logs) == 1:
        return f"The log of rank {logs[0].rank} went away while it was read: {logs[0].path}."
    who = spoken(log.rank for log in logs)
    return f"The logs of ranks {who} went away while they were read: {logs[0].path} and others."
