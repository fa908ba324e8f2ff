"""The spec's restart section in numbers, as the supervisors and agents read it."""

from __future__ import annotations

from typing import Any

from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import seconds

_SIGNAL_BEFORE = 120
"""Seconds: SLURM may send the warning up to 60 s early, and saving takes some time."""
_BY_REQUEUE = {"preempted", "node-failure", "time-limit"}


def restart_policy(spec: JobSpec) -> dict[str, Any]:
    """`max`, `on`, and in seconds `backoff`, `grace`, `hang_after` and `warning` (how long before
    the time limit SLURM's signal comes), each of the last three None where there is none."""
    restart = spec.restart
    return {
        "max": restart.max,
        "on": list(restart.on),
        "backoff": seconds(restart.backoff),
        "grace": _seconds(restart.grace),
        "hang_after": _seconds(restart.hang_after),
        "warning": warning_seconds(spec),
    }


def warning_seconds(spec: JobSpec) -> int | None:
    """How long before the time limit the warning comes; None where there is no such signal.

    Before a limit that the partition sets, there is nobody to say how long before.
    """
    limit = spec.resources.time_limit
    if spec.scheduler != "slurm" or limit is None or spec.slurm.signal_before == 0:
        return None
    if spec.slurm.signal_before is not None:
        return spec.slurm.signal_before
    return min(_SIGNAL_BEFORE, seconds(limit) // 2)


def returns_by_slurm(spec: JobSpec) -> bool:
    """Whether the same job may come back through the queue."""
    return not _BY_REQUEUE.isdisjoint(spec.restart.on)


def _seconds(duration: str | None) -> int | None:
    return None if duration is None else seconds(duration)
