"""A run's way on through SLURM's queue: the same job again, or a new one in its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from orchestrator.agent.allocation import Allocation, is_silence
from orchestrator.agent.attempts import record_end
from orchestrator.agent.bad_hosts import exclusion
from orchestrator.agent.classes import Verdict
from orchestrator.agent.clients import cancelled
from orchestrator.agent.events import Events
from orchestrator.agent.judgement import Judge
from orchestrator.agent.placement import revoked
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
        run_dir: Path,
        script: Path,
        sleep: Sleep,
    ) -> None:
        """A run's id, which its jobs are named by, is its folder's name."""
        self._allocation, self._judge, self._events = allocation, judge, events
        self._run_dir, self._script = run_dir, script
        self._sleep = sleep
        self._known = self._cancelled = False

    def go_on(self, attempt: int, reason: str, where: str | None) -> int:
        """Once; the exit code of this job. Where SLURM refuses to requeue it, or is known to, a new
        job continues the run."""
        self._known = self._judge.ending
        avoid = exclusion(self._judge.past(), self._allocation, self._script)
        refused: str | None = "its requeueing is switched off"
        if self._is_cancelled():
            return self.give_up()
        if where == "requeue":
            self._events.append("requeue", attempt=attempt, reason=reason)
            refused = self._until_answered(self._allocation.requeue)
        if refused == "":
            if avoid is not None and (said := self._allocation.exclude(avoid)):
                tell(f"SLURM does not keep the job away from {', '.join(avoid)}: {said}")
            self._sleep(_ENDED_BY_SLURM, through_signals=True)
            return self.give_up() if cancelled(self._run_dir) else 1
        if self._cancelled:
            return self.give_up()
        if self._judge.ending and where == "requeue":
            return 1
        made = self._until_answered(lambda: self._new_job(avoid))
        job_id, said = made if made is not None else ("", _SILENT)
        if job_id:
            self._note(job_id)
        elif self._cancelled:
            return self.give_up()
        elif said:
            why = refused or _SILENT
            tell(f"the run cannot go on: the job is not requeued ({why}), nor a new one: {said}")
        return 1

    def give_up(self) -> int:
        """Put on record that nothing follows the newest attempt, since the run was cancelled after
        it; nobody else may remember that. The exit code of this job."""
        end = self._judge.to_be_followed()
        if end is not None:
            said = str(end.get("class")), str(end.get("message"))
            verdict = revoked(Verdict(*said, True, False, None, [], None))
            record_end(self._events, int(end["attempt"]), verdict)
        return 1

    def _new_job(self, avoid: Sequence[str] | None) -> tuple[str, str] | None:
        """(job id, what was said) of a job in place of this one, ("", "") where none is needed;
        None where SLURM is silent. A job may have been taken though the answer to it was lost."""
        facts = self._allocation.facts()
        successor = self._allocation.successor(self._run_dir.name) if facts else None
        if successor is None:
            return None
        if successor or self._allocation.is_requeued(facts):
            return successor, ""
        job_id, said = self._allocation.submit_again(str(self._script), avoid)
        silent = is_silence(said) or not self._allocation.facts()
        return None if silent and not job_id else (job_id, said)

    def has_gone_on(self) -> bool:
        """Whether a supervisor that was killed has submitted the new job."""
        job_id = self._allocation.successor(self._run_dir.name)
        if job_id:
            self._note(job_id)
        return bool(job_id)

    def _note(self, job_id: str) -> None:
        """Of a run that was cancelled while it was submitted the client knew the old job alone."""
        self._events.append("submitted", job_id=job_id)
        if cancelled(self._run_dir):
            self._allocation.cancel(job_id)
            self.give_up()

    def _until_answered(self, ask: Callable[[], T | None]) -> T | None:
        """None where SLURM is silent for very long, or says that the job was cancelled meanwhile.
        Its silence settles nothing, and without its word the run is lost."""
        end = time.monotonic() + _INSISTS
        while (answer := ask()) is None and time.monotonic() < end:
            self._sleep(_BETWEEN, through_signals=True)
            if self._is_cancelled():
                return None
        return answer

    def _is_cancelled(self) -> bool:
        """Since the attempt was judged, by this person or anybody else. What SLURM was ending then
        it ends for the reason that was judged."""
        if not self._cancelled:
            self._cancelled = cancelled(self._run_dir) or (
                not self._known and self._judge.told() == "cancelled"
            )
        return self._cancelled
