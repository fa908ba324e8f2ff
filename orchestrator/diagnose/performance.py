"""What makes a run slow that does not fail: stragglers, data, throttled and idle GPUs.

Every finding states what was measured. Thresholds are such that a healthy run has none: see
`slow_steps.py` and `slow_gpus.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.diagnose.slow_finding import Finding
from orchestrator.diagnose.slow_gpus import gpu_findings, with_throttled
from orchestrator.diagnose.slow_steps import data_bound, stragglers
from orchestrator.logs.discovery import attempts, names, node_folders, node_number, ranks
from orchestrator.metrics.lines import Line, last_lines
from orchestrator.metrics.pace import periods
from orchestrator.metrics.samples import NAME
from orchestrator.runs.layout import RunLayout

__all__ = ["Finding", "findings"]

_REPORTS = 1 << 20
_SAMPLES, _LEAST, _MOST = 64 << 20, 64 << 10, 4 << 20
"""Bytes read of all samples together, and of one node's at least and at most. Of a thousand nodes
the last minutes are looked at, of a few the last hours."""


def findings(layout: RunLayout, attempt: int | None = None) -> tuple[Finding, ...]:
    """What costs the newest attempt (or this one) time; () for a healthy run, and where nothing
    was measured. Reads the ends of metrics.jsonl and of the nodes' samples, bounded in all.

    Raises UserError where the run folder cannot be read.
    """
    known = attempts(layout)
    attempt = max(known, default=None) if attempt is None else attempt
    if attempt is None:
        return ()
    measured = periods(last_lines(layout.metrics(attempt), _REPORTS))
    path = str(layout.metrics(attempt).relative_to(layout.root))
    slow = stragglers(measured, path, attempt)
    slow = tuple(one.on_nodes(_nodes_of(layout, attempt, one.ranks)) for one in slow)
    data = () if any(one.by_data for one in slow) else data_bound(measured, path, attempt)
    window = (measured[0].t - measured[0].seconds, measured[-1].t) if measured else None
    gpus = gpu_findings(_samples(layout, attempt), attempt, window)
    return (*(with_throttled(one, gpus) for one in slow), *data, *gpus)


def _samples(layout: RunLayout, attempt: int) -> Iterator[tuple[tuple[int, str], list[Line]]]:
    """By node and path in the run folder; one node's at a time, for parsed they are large."""
    folders = sorted(node_folders(layout.attempt(attempt)))
    share = _SAMPLES // max(1, len(folders))
    for folder in folders:
        path = folder / NAME
        lines = last_lines(path, max(_LEAST, min(_MOST, share)), counted=share)
        yield (node_number(folder), str(path.relative_to(layout.root))), lines


def _nodes_of(layout: RunLayout, attempt: int, wanted: tuple[int, ...]) -> dict[int, int]:
    """Rank to node. A rendezvous may give a node any ranks, so the logs are asked."""
    found: dict[int, int] = {}
    for folder in sorted(node_folders(layout.attempt(attempt))):
        if all(rank in found for rank in wanted):
            break
        found |= {rank: node_number(folder) for rank in ranks(names(folder)) if rank in wanted}
    return found
