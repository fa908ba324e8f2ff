"""From evidence to one state and one sentence. Pure.

The rules are asked in turn and the first that knows answers. Absence of evidence is
`unknown`, never failure.
"""

from __future__ import annotations

from orchestrator.runs.attempts import Attempt
from orchestrator.runs.case import Case, Evidence
from orchestrator.runs.events import Event
from orchestrator.runs.facts import Facts, gather
from orchestrator.runs.node_verdict import failed_by_nodes
from orchestrator.runs.process import Liveness
from orchestrator.runs.state import RunState, State
from orchestrator.runs.words import blame, exit_words, is_launch_reason
from orchestrator.schedulers.base import JobState

_TOLD = {
    JobState.OUT_OF_MEMORY: (State.OUT_OF_MEMORY, "the job ran out of host memory"),
    JobState.PREEMPTED: (State.PREEMPTED, "the job was preempted"),
    JobState.TIME_LIMIT: (State.TIME_LIMIT, "the job reached its time limit"),
    JobState.NODE_FAILURE: (State.NODE_FAILURE, "a node of the job failed"),
    JobState.CANCELLED: (State.CANCELLED, "the job was cancelled outside ptx"),
}
# These jobs may be requeued at any moment, so nothing about them is final.
MAY_COME_BACK = frozenset({JobState.PREEMPTED, JobState.NODE_FAILURE})


def reduce(evidence: Evidence, *, now: float, alive: Liveness) -> RunState:
    """The state of a run. A result that is `final` needs no scheduler, now or later."""
    return judge(evidence, gather(evidence.events), now=now, alive=alive)


def judge(evidence: Evidence, facts: Facts, *, now: float, alive: Liveness) -> RunState:
    """The same where it is known what the events say."""
    case = Case(evidence, facts, now, alive)
    return (
        _not_submitted(case)
        or _completed(case)
        or _cancelled(case)
        or _named_by_scheduler(case)
        or _to_be_retried(case)
        or _judged_by_supervisor(case)
        or failed_by_nodes(case)
        or _ended_by_supervisor(case)
        or _failed_by_scheduler(case)
        or _not_ended(case)
    )


def _not_submitted(case: Case) -> RunState | None:
    failed = case.facts.submit_failed
    if failed is not None:
        message = failed.text("message") or "the submission failed"
        return case.final(State.LAUNCH_ERROR, message, failed.t)
    if case.base.submitted is not None or case.base.attempt is not None or case.supervised:
        return None
    if case.facts.intended:
        return case.for_now(State.SUBMITTING, "the scheduler has not confirmed it yet")
    return case.for_now(State.UNKNOWN, "its submission left no trace")


def _completed(case: Case) -> RunState | None:
    """Every node ended, with all its ranks there and 0.

    The ranks of all nodes together are 0 to world size - 1: nodes that did not find each other
    train a copy each, and have the same ranks.
    """
    ranks, world = case.base.ranks, case.record.world_size
    if case.nodes_ended is None or len(ranks) != world or ranks.keys() != set(range(world)):
        return None
    for node in case.base.nodes:
        whole = len(node.ranks) == case.record.procs_per_node
        if not whole or any(node.ranks.values()) or node.reason != "completed":
            return None
    which = "its rank" if world == 1 else f"all {world} ranks"
    return case.final(State.COMPLETED, f"{which} exited with 0", case.nodes_ended)


def _cancelled(case: Case) -> RunState | None:
    """Cancelled before anything had gone wrong, and evidently over."""
    cancel, failure, end = case.facts.cancel, case.base.failure, case.facts.supervisor_ended
    gone_wrong = [t for t in (failure and failure.t, case.nodes_ended, end and end.t) if t]
    if case.retried:
        gone_wrong = []  # it was to go on
    if cancel is None or min(gone_wrong, default=cancel.t) < cancel.t:
        return None
    # Of a run that was to go on the job must be over: its nodes may wait for the next attempt.
    over = end or case.job_over or (case.nodes_ended and not case.retried)
    if not over and case.supervisor_alive is not False:
        return None
    return case.final(State.CANCELLED, _cancel_words(cancel), case.base.last_end or cancel.t)


def _cancel_words(cancel: Event) -> str:
    user = cancel.text("user")
    return f"cancelled by {user}" if user else "cancelled"


def _named_by_scheduler(case: Case) -> RunState | None:
    """Ends that only the scheduler can name."""
    if case.job_state not in _TOLD:
        return None
    state, words = _TOLD[case.job_state]
    if state is State.CANCELLED and case.facts.cancel is not None:
        words = _cancel_words(case.facts.cancel)
    first = f"; first to end was {blame(case.base.failure)}" if case.base.failure else ""
    comes_back = case.job_state in MAY_COME_BACK and case.facts.cancel is None
    told = case.for_now if comes_back else case.final
    return told(state, f"{words}{first}")


def _to_be_retried(case: Case) -> RunState | None:
    """The attempt is over, and another is to follow it."""
    end = case.facts.end
    if end is None or not end.retry or case.job_state == JobState.PENDING:
        return None
    how = _end_words(end)
    if case.supervisor_is_gone:
        return case.final(end.state, f"{how}; what was to start it again is gone")
    if case.job_over:
        return case.for_now(end.state, f"{how}; it was to be started again")
    if case.facts.cancel is not None:
        if case.job_state == JobState.UNKNOWN and not case.heart_beats:
            return case.for_now(State.CANCELLED, _cancel_words(case.facts.cancel))
        return case.for_now(State.RUNNING, "cancelled; it is not started again")
    if end.where == "allocation":
        return case.for_now(State.RUNNING, f"restarting: {how}")
    place = "queued again" if end.where == "requeue" else "submitted again"
    return case.for_now(State.PENDING, f"to be {place}: {how}")


def _judged_by_supervisor(case: Case) -> RunState | None:
    """Whoever started the attempt has seen how it ended, and that nothing follows."""
    end = case.facts.end
    if end is None or end.retry or end.end_class == State.UNKNOWN:
        return None
    nodes_say = any(is_launch_reason(node.reason) for node in case.base.nodes)
    named = case.base.failure is not None or nodes_say
    if end.end_class in (State.COMPLETED, State.FAILED, State.LAUNCH_ERROR) and named:
        return None  # who it was is told by the nodes
    return case.final(end.state, end.message or _end_words(end), end.ended)


def _end_words(end: Attempt) -> str:
    words = f": {end.message.rstrip('.')}" if end.message else ""
    return f"attempt {end.number} ended, {end.end_class}{words}"


def _ended_by_supervisor(case: Case) -> RunState | None:
    """A run on this machine whose agent left no verdict."""
    end = case.facts.supervisor_ended
    if end is not None:
        message, rc = end.text("message"), end.integer("rc")
        if not case.base.nodes:
            words = message or "it ended before its ranks could be started; see scheduler.log"
            return case.final(State.LAUNCH_ERROR, words, end.t)
        return case.final(State.FAILED, message or f"the agent {exit_words(rc)}", end.t)
    if case.supervisor_alive is False:
        return case.final(State.FAILED, "the supervisor died")
    return None


def _failed_by_scheduler(case: Case) -> RunState | None:
    """The scheduler calls it over, yet not every node has reported."""
    if not case.job_over:
        return None
    told = f" ({case.job_reason})" if case.job_reason else ""
    silent = [str(node.node) for node in case.base.nodes if node.ended is None]
    if case.job_state == JobState.COMPLETED:
        return case.for_now(
            State.UNKNOWN,
            f"the scheduler calls it completed{told}, but not every node left its record",
        )
    if not case.base.nodes:
        return case.final(State.LAUNCH_ERROR, f"the job failed before a node started{told}")
    which = f"; node {', '.join(silent[:8])} left no record" if silent else ""
    return case.final(State.FAILED, f"the job failed{told}{which}")


def _not_ended(case: Case) -> RunState:
    if case.job_state == JobState.PENDING:
        why = f" ({case.job_reason})" if case.job_reason else ""
        if case.facts.cancel is not None:
            why += "; it was cancelled, and the scheduler has not heard of that"
        return case.for_now(State.PENDING, f"waiting in the queue{why}")
    if not (case.job_state == JobState.RUNNING or case.supervisor_alive or case.heart_beats):
        return case.for_now(State.UNKNOWN, _why_unknown(case))
    if case.facts.cancel is not None:
        return case.for_now(State.RUNNING, "cancelled; its processes are ending")
    if case.base.failure is not None:
        return case.for_now(State.RUNNING, f"ending: {blame(case.base.failure)}")
    if case.base.nodes:
        up = sum(node.ended is None for node in case.base.nodes)
        partly = f" on {up} of {case.record.nodes} nodes" if up != case.record.nodes else ""
        return case.for_now(State.RUNNING, f"running{partly}")
    waiting = case.facts.waiting
    if waiting is not None:
        wanted, free = waiting.integer("wanted"), waiting.integer("free")
        return case.for_now(State.PENDING, f"waiting for {wanted} GPUs ({free} free)")
    return case.for_now(State.PENDING if case.base.attempt is None else State.RUNNING, "starting")


def _why_unknown(case: Case) -> str:
    told = f" ({case.job_reason})" if case.job_reason else ""
    if case.heartbeat is not None:
        silence = int(case.now - case.heartbeat)
        return f"its nodes are silent for {silence} s and its scheduler does not know it{told}"
    if case.base.nodes:
        return f"it started, but its scheduler does not know it{told}"
    return f"its scheduler does not know it{told}, and no node has reported"
