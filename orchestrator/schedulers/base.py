"""What a scheduler is to ptx. A new one is one module and one registry row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # `ptx status` needs the states here, and none of pydantic
    from orchestrator.plan.plan import Plan, Target
    from orchestrator.render.bundle import Bundle, BundleFile
    from orchestrator.runs.layout import RunLayout
    from orchestrator.spec.job import JobSpec


class JobState(StrEnum):
    """What a scheduler says of a job; what happened inside is the run folder's to say."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    OUT_OF_MEMORY = "out-of-memory"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time-limit"
    NODE_FAILURE = "node-failure"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Absent from every source, or none answered: says nothing about success or failure."""


@dataclass(frozen=True)
class JobInfo:
    job_id: str
    state: JobState
    reason: str = ""
    """The scheduler's own word: pending reason, raw state, exit code."""


class Scheduler(Protocol):
    name: str

    def target(self, spec: JobSpec) -> Target:
        """Look at what planning must know. Cheap; also called for a dry run."""
        ...

    def render(self, spec: JobSpec, plan: Plan) -> tuple[BundleFile, ...]:
        """Pure: the scheduler's own files of the bundle (SLURM: job.sbatch; local: none)."""
        ...

    def submit_argv(self, layout: RunLayout) -> tuple[str, ...]:
        """Pure: what submit() executes, as shown by the dry run."""
        ...

    def check(self) -> None:
        """Raise SchedulerUnreachable, with the way out, before any folder is made."""
        ...

    def submit(self, bundle: Bundle, layout: RunLayout) -> str:
        """Hand over a bundle that is written; return the job id."""
        ...

    def cancel(self, layout: RunLayout, job_id: str) -> None:
        """Ask for the end; a job that is gone already is no error."""
        ...

    def find(self, run_id: str, array: str = "") -> str | None:
        """The job that bears this run's tag, for a submission whose client died; of a run that was
        submitted as an element, the one in the array of this name."""
        ...

    def living(self, run_id: str, ended: str | None) -> str | None:
        """A job that bears this run's tag and would go on beside another: one that waits, or that
        runs, unless it is the one that has `ended` by all that its ranks say. Raises
        SchedulerUnreachable where that cannot be known."""
        ...

    def query(self, jobs: Mapping[str, RunLayout]) -> Sequence[JobInfo]:
        """State of all these jobs (job id -> run folder) with one batched look."""
        ...
