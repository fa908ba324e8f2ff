"""How long before the time limit SLURM's signal comes, and what of that the ranks have."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import seconds

_SIGNAL_BEFORE = 120
"""Seconds: SLURM may send the warning up to 60 s early, and saving takes some time."""
_REQUEUE = 30
"""Seconds that the agents keep for the end and the way back into the queue (agent/node.py), a
quarter of a warning that is shorter than four times that."""


class MeasuredSave(NamedTuple):
    """How long a save took, from the step to the commit."""

    seconds: float
    where: str
    """As `step 200 of llama-7f3kq9`."""


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


def left_to_save(warning: float) -> float:
    """Of so many seconds, what the ranks have before they are ended."""
    return warning - min(_REQUEUE, warning / 4)


def warning_for(saving: float) -> int:
    """The shortest warning that leaves so many seconds, in whole tens."""
    exact = saving + _REQUEUE if saving >= 3 * _REQUEUE else saving * 4 / 3
    return -int(-exact // 10) * 10


def saves_on_warning(spec: JobSpec) -> bool:
    """Whether ranks that are told to stop save."""
    checkpoint = spec.checkpoint
    return bool(checkpoint.on_signal or checkpoint.every_steps or checkpoint.every_minutes)
