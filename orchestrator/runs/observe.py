"""Looking at runs: events first, then one batched question to each scheduler that must be asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestrator.errors import UserError
from orchestrator.runs.ask import ask_scheduler
from orchestrator.runs.case import JOB_OVER, Evidence
from orchestrator.runs.events import ClientEvents, Event, EventReader, read_together
from orchestrator.runs.facts import Facts, gather
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import Process, alive
from orchestrator.runs.reading import Mark
from orchestrator.runs.records import RunRecord, read_exit, read_heartbeat, read_record
from orchestrator.runs.reduce import MAY_COME_BACK, judge, reduce
from orchestrator.runs.row import RunRow
from orchestrator.runs.server_time import age
from orchestrator.runs.state import Failure, RunState
from orchestrator.runs.submissions import current, record_now, submissions
from orchestrator.runs.words import what_it_said
from orchestrator.schedulers.base import JobInfo, JobState


class Observed(NamedTuple):
    layout: RunLayout
    record: RunRecord
    events: Sequence[Event]
    state: RunState
    job: JobInfo | None = None
    """None where the events alone said everything."""

    def row(self) -> RunRow:
        record, state = self.record, self.state
        made = [] if state.final else submissions(self.events)
        return RunRow(
            path=self.layout.path,
            run_id=record.run_id,
            name=record.name,
            state=state.state.value,
            reason=state.reason,
            brief=_brief(state),
            verdict=0,
            created=record.created,
            submitted=state.submitted,
            started=state.started,
            ended=state.ended,
            scheduler=record.scheduler,
            launcher=record.launcher,
            job_id=state.job_id,
            attempts=list(state.attempts),
            nodes=record.nodes,
            procs_per_node=record.procs_per_node,
            world_size=record.world_size,
            spec_path=record.spec_path,
            user=record.user,
            final=state.final,
            unsettled=bool(made) and not made[-1].settled(self.events),
        )


def _brief(state: RunState) -> str:
    failure = state.failure
    if failure is None or not failure.message or not state.reason.startswith("Rank "):
        return state.reason
    return what_it_said(failure)


class Observer:
    """One run, looked at again and again: a look reads only what was written since the last."""

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        self._reader = EventReader(layout)
        self._record: RunRecord | None = None
        self._gathered: tuple[Sequence[Event], Facts] | None = None

    @property
    def folder(self) -> Mark | None:
        """What the folder of events looked like before the last look; None where there is none."""
        return self._reader.folder

    @property
    def looked_ns(self) -> int:
        """When that was."""
        return self._reader.looked_ns

    @property
    def files(self) -> dict[str, Mark]:
        return self._reader.marks

    def look(self, *, ask: bool = True) -> tuple[Observed, tuple[str, ...]]:
        """The run, and what could not be asked: one sentence each. An ended run costs no
        scheduler anything; without `ask` none is asked, and a run that has not evidently ended is
        not final. Raises UserError where run.json is unreadable."""
        self.read([self])
        run = self.from_events()
        if run is None:
            raise UserError(
                f"{self.layout.record} cannot be read by this version of ptx.",
                hint="It may be damaged, or written by a newer ptx.",
            )
        if run.state.final or not ask:
            return run, ()
        troubles: list[str] = []
        jobs = _ask_about(run.record.scheduler, [run], troubles)
        return self.with_job(run, jobs.get(run.state.job_id or "")), tuple(troubles)

    @staticmethod
    def read(observers: Sequence[Observer]) -> None:
        """What their folders say now. Many are read together and then judged: that takes a tenth
        less time than one after the other."""
        for one in observers:
            one._record = read_record(one.layout)
        read_together([one._reader for one in observers if one._record is not None])

    def from_events(self) -> Observed | None:
        """As the events that were read tell it; None where no run.json could be."""
        record, said = self._record, self._reader.events
        if record is None:
            return None
        now = record_now(record, said)
        events, state = self._judge(Evidence(now, said))
        if events is not said:
            now = record_now(record, events)
        return Observed(self.layout, now, events, _explained(state, self.layout))

    def with_job(self, run: Observed, job: JobInfo | None) -> Observed:
        """With the scheduler's word besides; None stands for a scheduler that said nothing."""
        layout, state = self.layout, run.state
        job = job or JobInfo(state.job_id or "", JobState.UNKNOWN)
        # After the scheduler's word, since a job that is over has said all; of one that is not,
        # what it said a moment ago is as true as that.
        going = job.state in (JobState.PENDING, JobState.RUNNING)
        said = run.events if going else self._reader.read()
        heartbeat = _newest_heartbeat(run) if job.state == JobState.UNKNOWN else None
        events, state = self._judge(Evidence(run.record, said, job, heartbeat))
        if (state.job_id or "") != job.job_id:
            # It went on in another job meanwhile, and what was said of this one says nothing.
            job = JobInfo(state.job_id or "", JobState.UNKNOWN)
            events, state = self._judge(Evidence(run.record, events, job, heartbeat))
        if state.final and job.state in JOB_OVER - MAY_COME_BACK:
            _note(layout, job, state.attempt)
        return Observed(layout, run.record, events, _explained(state, layout), job)

    def _judge(self, evidence: Evidence) -> tuple[Sequence[Event], RunState]:
        """The verdict, and the events it rests on: those of a dead supervisor were read after it
        died, else its last words would be missed."""
        dead, now = False, time.time()

        def look(process: Process) -> bool | None:
            nonlocal dead
            living = alive(process)
            dead = living is False
            return living

        state = judge(evidence, self._gather(evidence.events), now=now, alive=look)
        if dead and all(event.type != "supervisor_ended" for event in current(evidence.events)):
            evidence = evidence._replace(events=self._reader.read())
            state = reduce(evidence, now=now, alive=alive)
        return evidence.events, state

    def _gather(self, events: Sequence[Event]) -> Facts:
        """Once for the same events, as when a scheduler has been asked besides."""
        if self._gathered is None or self._gathered[0] is not events:
            self._gathered = events, gather(events)
        return self._gathered[1]


def observe_one(layout: RunLayout, *, ask: bool = True) -> tuple[Observed, tuple[str, ...]]:
    """One run, looked at once. Raises UserError where run.json is unreadable."""
    return Observer(layout).look(ask=ask)


class Look(NamedTuple):
    runs: tuple[Observed, ...]
    troubles: tuple[str, ...] = ()
    """One sentence for each scheduler that could not be asked."""


def observe(runs: Iterable[tuple[RunRecord, RunLayout]]) -> Look:
    """A handful of runs, with one question to each scheduler; those that can be read, in the
    order given. For thousands there is `survey`."""
    observers = [Observer(layout) for _, layout in runs]
    Observer.read(observers)
    watched = [(observer, observer.from_events()) for observer in observers]
    found = [(observer, run) for observer, run in watched if run is not None]
    troubles: list[str] = []
    jobs: dict[str, dict[str, JobInfo]] = {}
    for name in sorted({run.record.scheduler for _, run in found if not run.state.final}):
        asked = [run for _, run in found if not run.state.final and run.record.scheduler == name]
        jobs[name] = _ask_about(name, asked, troubles)
    looked = (
        run
        if run.state.final
        else observer.with_job(run, jobs[run.record.scheduler].get(run.state.job_id or ""))
        for observer, run in found
    )
    return Look(tuple(looked), tuple(troubles))


def _ask_about(name: str, runs: Sequence[Observed], troubles: list[str]) -> dict[str, JobInfo]:
    jobs = {run.state.job_id: run.layout for run in runs if run.state.job_id}
    return ask_scheduler(name, jobs, [(run.layout, run.events) for run in runs], troubles)


def _newest_heartbeat(run: Observed) -> float | None:
    """In this machine's time, whatever its clock says."""
    attempt = run.state.attempt
    if attempt is None:
        return None
    beats = (read_heartbeat(run.layout, attempt, node.node) for node in run.state.nodes)
    newest = max((beat.written for beat in beats if beat is not None), default=None)
    now = time.time()
    return None if newest is None else now - age(run.layout, newest, now)


def _note(layout: RunLayout, job: JobInfo, attempt: int | None) -> None:
    """Keep the scheduler's last word: it forgets jobs, and need not be asked twice."""
    fields = {"state": job.state.value, "reason": job.reason, "attempt": attempt}
    fields["job_id"] = job.job_id
    try:
        ClientEvents(layout).append("job_ended", **fields)
    except OSError:
        return  # somebody else's run, or a full disk: the next look asks again


def _explained(state: RunState, layout: RunLayout) -> RunState:
    """Name the exception of the first failing rank where its agent did not."""
    failure = state.failure
    if failure is None or failure.message or state.attempt is None:
        return state
    message = _exception(layout, state.attempt, failure)
    if not message:
        return state
    told = failure._replace(message=message)
    return state._replace(failure=told, reason=state.reason.rstrip(".") + f": {message}")


def _exception(layout: RunLayout, attempt: int, failure: Failure) -> str:
    record = read_exit(layout, attempt, failure.node, failure.rank)
    if record is None:
        return ""
    return ": ".join(part for part in (record.exception_type, record.exception_message) if part)
