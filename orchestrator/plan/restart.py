"""The spec's restart section in numbers, as the supervisors and agents read it."""

from __future__ import annotations

from typing import Any

from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import seconds
from orchestrator.spec.warning import warning_seconds

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


def returns_by_slurm(spec: JobSpec) -> bool:
    """Whether the same job may come back through the queue."""
    return not _BY_REQUEUE.isdisjoint(spec.restart.on)


def _seconds(duration: str | None) -> int | None:
    return None if duration is None else seconds(duration)
