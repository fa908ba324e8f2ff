"""A run's way on through SLURM's queue: the same job again, or a new one in its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.bad_hosts import exclusion
from orchestrator.agent.events import Events
from orchestrator.agent.judgement import Judge
from orchestrator.agent.stderr import tell

T = TypeVar("T")

_BETWEEN = 2.0
"""Seconds between two questions to SLURM."""
_ENDED_BY_SLURM = 90.0
"""Seconds within which SLURM ends the batch step of a job that it has requeued."""
_INSISTS = 1800.0
"""Seconds for which it asks again where SLURM does not answer."""
_SILENT = "SLURM does not answer"


class Sleep(Protocol):
    def __call__(self, seconds: float, *, through_signals: bool = False) -> None: ...


class Queue:
    def __init__(
        self,
        allocation: Allocation,
        judge: Judge,
        events: Events,
        script: Path,
        run_id: str,
        sleep: Sleep,
    ) -> None:
        self._allocation, self._judge, self._events = allocation, judge, events
        self._script, self._run_id, self._sleep = script, run_id, sleep

    def go_on(self, attempt: int, reason: str, where: str | None) -> int:
        """Once; the exit code of this job. Where SLURM refuses to requeue it, or is known to, a new
        job continues the run."""
        avoid = exclusion(self._judge.past(), self._allocation)
        refused: str | None = "its requeueing is switched off"
        if where == "requeue":
            self._events.append("requeue", attempt=attempt, reason=reason)
            refused = self._until_answered(self._allocation.requeue)
        if refused == "":
            if avoid is not None and (said := self._allocation.exclude(avoid)):
                tell(f"SLURM does not keep the job away from {', '.join(avoid)}: {said}")
            self._sleep(_ENDED_BY_SLURM, through_signals=True)
            return 1
        if self._judge.ending and where == "requeue":
            return 1
        job_id, said = self._until_answered(lambda: self._new_job(avoid)) or ("", _SILENT)
        if job_id:
            self._events.append("submitted", job_id=job_id)
        else:
            why = refused or _SILENT
            tell(f"the run cannot go on: the job is not requeued ({why}), nor a new one: {said}")
        return 1

    def _new_job(self, avoid: Sequence[str] | None) -> tuple[str, str] | None:
        """(job id, what was said) of a job in place of this one; None where SLURM is silent. A job
        may have been taken though the answer to it was lost."""
        if not self._allocation.facts():
            return None
        if job_id := self._allocation.successor(self._run_id):
            return job_id, ""
        job_id, said = self._allocation.submit_again(str(self._script), avoid)
        return (job_id, said) if job_id or self._allocation.facts() else None

    def _until_answered(self, ask: Callable[[], T | None]) -> T | None:
        """None where SLURM is silent for very long: its silence settles nothing, and without its
        word the run is lost."""
        end = time.monotonic() + _INSISTS
        while (answer := ask()) is None and time.monotonic() < end:
            self._sleep(_BETWEEN, through_signals=True)
        return answer
