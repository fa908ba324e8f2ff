"""What the events of a run say, before anybody judges it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from orchestrator.runs.attempts import Attempt, history
from orchestrator.runs.events import Event
from orchestrator.runs.process import Process
from orchestrator.runs.reading import END_OF_TIME, NUMBER
from orchestrator.runs.state import Failure, NodeState, RunState, State
from orchestrator.runs.submissions import current
from orchestrator.schedulers.base import JobInfo, JobState

_NAMES_A_JOB = frozenset({"submitted", "job_started"})
_JOB_STATES = {state.value: state for state in JobState}
_OF_AN_ATTEMPT = frozenset({"job_started", "node_started", "node_ended"})


class Facts(NamedTuple):
    base: RunState
    """Attempts, nodes and times; its state and sentence are not judged yet."""
    intended: bool
    submit_failed: Event | None
    """Only where nothing shows that the job came to be after all."""
    cancel: Event | None
    """The first that the scheduler did not turn down."""
    noted: JobInfo | None
    """The scheduler's last word on the newest attempt, noted by an earlier command."""
    noted_at: float | None
    supervisor: Process | None
    supervisor_ended: Event | None
    waiting: Event | None
    """The wait for GPUs that has not ended yet."""
    end: Attempt | None = None
    """The newest attempt, once its supervisor has judged how it ended."""


def gather(events: Sequence[Event]) -> Facts:
    """`events` in time order; those of earlier submissions count as history."""
    everything, events = events, current(events)
    last: dict[str, Event] = {}
    begun: dict[int, float] = {}
    of_nodes: dict[int, list[Event]] = {}
    of_jobs: list[Event] = []
    for event in events:
        kind = event.type
        last[kind] = event
        if kind in _NAMES_A_JOB:
            of_jobs.append(event)
        if kind in _OF_AN_ATTEMPT:
            number = event.integer("attempt")
            if kind != "node_ended":
                begun.setdefault(number, event.t)
            if kind != "job_started":
                of_nodes.setdefault(number, []).append(event)
    attempt = max(begun, default=None)
    started = None if attempt is None else begun[attempt]
    whole = history(everything)
    own = whole if events is everything else history(events)
    nodes = () if attempt is None else _nodes(of_nodes.get(attempt, ()))
    base = _base(nodes, _job_id(of_jobs), last, attempt, started, whole)
    noted = last.get("job_ended")
    if noted is not None and (
        _is_of_earlier_attempt(noted, attempt, started)
        or noted.text("job_id") not in ("", base.job_id)
    ):
        noted = None  # the job was requeued since, or another has taken its place
    supervisor = last.get("supervisor_started")
    came_to_be = "submitted" in last or attempt is not None or supervisor is not None
    ended = [one for one in own if one.number == attempt and one.end_class]
    return Facts(
        base=base,
        intended="intent" in last,
        submit_failed=None if came_to_be else last.get("submit_failed"),
        cancel=_standing_cancel(events) if "cancel" in last else None,
        noted=_job_info(noted, base.job_id or ""),
        noted_at=noted.t if noted else None,
        supervisor=Process.of(supervisor.fields) if supervisor else None,
        supervisor_ended=last.get("supervisor_ended"),
        waiting=None if "gpus_bound" in last else last.get("waiting_for_gpus"),
        end=ended[0] if ended else None,
    )


def _standing_cancel(events: Iterable[Event]) -> Event | None:
    standing: list[Event] = []
    for event in events:
        if event.type == "cancel":
            standing.append(event)
        elif event.type == "cancel_failed" and standing:
            standing.pop()
    return standing[0] if standing else None


def _is_of_earlier_attempt(noted: Event, attempt: int | None, started: float | None) -> bool:
    """By its number: the clocks of client and node may disagree."""
    if "attempt" in noted.fields:
        return bool(noted.fields["attempt"] != attempt)
    return started is not None and noted.t < started


def _job_id(events: Sequence[Event]) -> str | None:
    """The newest job, from `submitted` and `job_started` in time order.

    A job that has started went before what no job_started names yet, whatever the clock of the
    client says; and one may have started whose `submitted` nobody lived to write.
    """
    named = {event.text("job_id") for event in events}
    if len(named) < 2:  # as of nearly all of ten thousand runs
        return max(named, default=None) or None
    begun = [event for event in events if event.type == "job_started"]
    if not begun:
        return events[-1].text("job_id") or None
    newest = max(begun, key=lambda event: event.integer("attempt"))
    known = {event.text("job_id") for event in begun}
    later = [event.text("job_id") for event in events if event.t > newest.t]
    waits = [job_id for job_id in later if job_id and job_id not in known]
    return (waits or [newest.text("job_id")])[-1] or None


def _base(
    nodes: tuple[NodeState, ...],
    job_id: str | None,
    last: dict[str, Event],
    attempt: int | None,
    started: float | None,
    attempts: Sequence[Attempt],
) -> RunState:
    submitted = last.get("submitted")
    failures = [node.failure for node in nodes if node.failure is not None]
    return RunState(
        State.UNKNOWN,
        "",
        attempt=attempt,
        attempts=tuple([one.number for one in attempts]),
        job_id=job_id,
        submitted=submitted.t if submitted else None,
        started=started,
        nodes=nodes,
        failure=min(failures, key=attrgetter("t")) if failures else None,
    )


def _job_info(noted: Event | None, job_id: str) -> JobInfo | None:
    state = None if noted is None else _JOB_STATES.get(noted.text("state"))
    if noted is None or state is None:
        return None
    return JobInfo(job_id, state, noted.text("reason"))


def _nodes(events: Iterable[Event]) -> tuple[NodeState, ...]:
    """Of one attempt, from its `node_started` and `node_ended`."""
    started: dict[int, Event] = {}
    ended: dict[int, Event] = {}
    for event in events:
        of_kind = started if event.type == "node_started" else ended
        of_kind[event.integer("node")] = event
    nodes = sorted({**started, **ended})
    return tuple([_node(node, started.get(node), ended.get(node)) for node in nodes])


def _node(number: int, started: Event | None, ended: Event | None) -> NodeState:
    host = started.text("host") if started else ended.text("host") if ended else ""
    begun = started.t if started else ended.t if ended else 0.0
    if ended is None:
        return NodeState(number, host, begun, {})
    return NodeState(
        number,
        host,
        begun,
        _codes(ended.fields.get("ranks")),
        ended.t,
        ended.integer("rc"),
        ended.text("reason"),
        ended.text("message"),
        _failure(number, ended),
    )


def _codes(ranks: object) -> dict[int, int]:
    """Exit code of each rank."""
    if not isinstance(ranks, dict):
        return {}
    return {
        int(rank): code
        for rank, code in ranks.items()
        if rank.isdecimal() and len(rank) < 10 and isinstance(code, int)
    }


def _failure(node: int, event: Event) -> Failure | None:
    fields = event.fields.get("first_failure")
    if not isinstance(fields, dict):
        return None
    told = Event(event.t, "first_failure", fields)
    code, signal, t = fields.get("code"), fields.get("signal"), fields.get("t")
    return Failure(
        node,
        max(0, told.integer("rank")),
        code if isinstance(code, int) else None,
        signal if isinstance(signal, int) else None,
        float(t) if isinstance(t, NUMBER) and 0 <= t < END_OF_TIME else event.t,
        told.text("message"),
    )
