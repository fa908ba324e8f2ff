"""The evidence of one run, with what the rules that judge it share. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.runs.events import Event
from orchestrator.runs.facts import Facts
from orchestrator.runs.process import Liveness
from orchestrator.runs.records import RunRecord
from orchestrator.runs.state import RunState, State
from orchestrator.runs.words import sentence
from orchestrator.schedulers.base import JobInfo, JobState

HEARTBEAT_SECONDS = 120
"""An agent heard of within this time (four beats) is taken to be alive."""

JOB_OVER = frozenset(JobState) - {JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN}


class Evidence(NamedTuple):
    record: RunRecord
    events: Sequence[Event]
    job: JobInfo | None = None
    """What the scheduler says now; None where it was not asked."""
    heartbeat: float | None = None
    """Newest one of the newest attempt, in epoch seconds by this machine's clock; None where none
    was looked for."""


class Case:
    """The evidence of one run, with the words that the rules share."""

    def __init__(self, evidence: Evidence, facts: Facts, now: float, alive: Liveness) -> None:
        self.facts = facts
        self.base = facts.base
        self.record = evidence.record
        self.now = now
        self.heartbeat = evidence.heartbeat
        job = evidence.job
        if facts.noted is not None and (job is None or job.state == JobState.UNKNOWN):
            job = facts.noted
        self.job_state = job.state if job else None
        self.job_reason = job.reason if job else ""
        self.job_over = job is not None and job.state in JOB_OVER
        self.retried = facts.end is not None and facts.end.retry
        self.supervised = facts.supervisor is not None
        self.supervisor_alive = alive(facts.supervisor) if facts.supervisor else None
        self.nodes_ended = (
            self.base.all_nodes_ended if len(self.base.nodes) >= self.record.nodes else None
        )

    def final(self, state: State, reason: str, ended: float | None = None) -> RunState:
        ended = ended or self.base.last_end or self.facts.noted_at
        return self.base._replace(state=state, reason=sentence(reason), ended=ended, final=True)

    def for_now(self, state: State, reason: str) -> RunState:
        ended = (self.base.last_end or self.facts.noted_at) if state.ended else None
        return self.base._replace(state=state, reason=sentence(reason), ended=ended)

    @property
    def supervisor_is_gone(self) -> bool:
        return self.facts.supervisor_ended is not None or self.supervisor_alive is False

    @property
    def heart_beats(self) -> bool:
        return self.heartbeat is not None and self.now - self.heartbeat < HEARTBEAT_SECONDS
