"""Looking at runs: events first, then one batched question to each scheduler that must be asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.runs.events import ClientEvents, Event, read_events
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import Process, alive
from orchestrator.runs.reconcile import reconcile
from orchestrator.runs.records import RunRecord, read_exit, read_heartbeat, read_record
from orchestrator.runs.reduce import JOB_OVER, MAY_COME_BACK, Evidence, reduce
from orchestrator.runs.state import Failure, RunState
from orchestrator.runs.submissions import current, record_now
from orchestrator.schedulers.base import JobInfo, JobState


@dataclass(frozen=True)
class Observed:
    layout: RunLayout
    record: RunRecord
    events: Sequence[Event]
    state: RunState
    job: JobInfo | None = None
    """None where the events alone said everything."""


@dataclass(frozen=True)
class Look:
    runs: tuple[Observed, ...]
    troubles: tuple[str, ...] = ()
    """One sentence for each scheduler that could not be asked."""


def observe(runs: Iterable[tuple[RunRecord, RunLayout]], *, ask: bool = True) -> Look:
    """The state of each run, in the order given. Ended runs cost no scheduler anything;
    without `ask` none is asked, and a run that has not evidently ended is not final."""
    now = time.time()
    first = [_from_events(record, layout, now) for record, layout in runs]
    open_runs = [run for run in first if not run.state.final]
    if not open_runs or not ask:
        return Look(tuple(first))
    troubles: list[str] = []
    for name in sorted({run.record.scheduler for run in open_runs}):
        asked = [run for run in open_runs if run.record.scheduler == name]
        jobs = _ask(name, asked, troubles)
        for run in asked:
            first[first.index(run)] = _with_job(run, jobs, now)
    return Look(tuple(first), tuple(troubles))


def observe_one(layout: RunLayout, *, ask: bool = True) -> tuple[Observed, tuple[str, ...]]:
    """One run, and what could not be asked. Raises UserError where run.json is unreadable."""
    record = read_record(layout)
    if record is None:
        raise UserError(
            f"{layout.record} cannot be read by this version of ptx.",
            hint="It may be damaged, or written by a newer ptx.",
        )
    look = observe([(record, layout)], ask=ask)
    return look.runs[0], look.troubles


def _from_events(record: RunRecord, layout: RunLayout, now: float) -> Observed:
    said = read_events(layout)
    events, state = _judge(Evidence(record_now(record, said), said), layout, now)
    return Observed(layout, record_now(record, events), events, _explained(state, layout))


def _judge(evidence: Evidence, layout: RunLayout, now: float) -> tuple[Sequence[Event], RunState]:
    """The verdict, and the events it rests on: those of a dead supervisor were read after it
    died, else its last words would be missed."""
    dead = False

    def look(process: Process) -> bool | None:
        nonlocal dead
        living = alive(process)
        dead = living is False
        return living

    state = reduce(evidence, now=now, alive=look)
    if dead and all(event.type != "supervisor_ended" for event in current(evidence.events)):
        evidence = replace(evidence, events=read_events(layout))
        state = reduce(evidence, now=now, alive=alive)
    return evidence.events, state


def _ask(name: str, runs: Sequence[Observed], troubles: list[str]) -> dict[str, JobInfo]:
    """Job id -> what the scheduler says. Runs that a dead client left are settled on the way."""
    from orchestrator.schedulers.registry import get

    try:
        scheduler = get(name)
        for run in runs:
            reconcile(run.layout, run.events, scheduler)
        jobs = {run.state.job_id: run.layout for run in runs if run.state.job_id}
        return {info.job_id: info for info in scheduler.query(jobs)} if jobs else {}
    except SchedulerUnreachable as error:
        troubles.append(f"{error.message} {error.hint or ''}".strip())
    except UserError as error:  # a scheduler of a package that is no longer installed
        troubles.append(error.message)
    return {}


def _with_job(run: Observed, jobs: dict[str, JobInfo], now: float) -> Observed:
    layout, job_id = run.layout, run.state.job_id
    said = read_events(layout)  # after the scheduler's word: a job that is over has said all
    job = jobs.get(job_id or "") or JobInfo(job_id or "", JobState.UNKNOWN)
    heartbeat = _newest_heartbeat(run) if job.state == JobState.UNKNOWN else None
    events, state = _judge(Evidence(run.record, said, job, heartbeat), layout, now)
    if state.final and job.state in JOB_OVER - MAY_COME_BACK:
        _note(layout, job, state.attempt)
    return replace(run, events=events, state=_explained(state, layout), job=job)


def _newest_heartbeat(run: Observed) -> float | None:
    attempt = run.state.attempt
    if attempt is None:
        return None
    beats = (read_heartbeat(run.layout, attempt, node.node) for node in run.state.nodes)
    return max((beat for beat in beats if beat is not None), default=None)


def _note(layout: RunLayout, job: JobInfo, attempt: int | None) -> None:
    """Keep the scheduler's last word: it forgets jobs, and need not be asked twice."""
    fields = {"state": job.state.value, "reason": job.reason, "attempt": attempt}
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
    told = replace(failure, message=message)
    return replace(state, failure=told, reason=state.reason.rstrip(".") + f": {message}")


def _exception(layout: RunLayout, attempt: int, failure: Failure) -> str:
    record = read_exit(layout, attempt, failure.node, failure.rank)
    if record is None:
        return ""
    return ": ".join(part for part in (record.exception_type, record.exception_message) if part)
