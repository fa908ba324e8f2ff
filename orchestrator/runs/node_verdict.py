"""What the agents reported of their nodes, as a verdict on the run. Pure."""

from __future__ import annotations

from orchestrator.runs.case import Case
from orchestrator.runs.state import RunState, State
from orchestrator.runs.words import blame, exit_words, is_launch_reason, launch_error
from orchestrator.schedulers.base import JobState


def failed_by_nodes(case: Case) -> RunState | None:
    """What the agents reported, once they all did or nobody is left who could."""
    failure = case.base.failure
    if case.job_state == JobState.PENDING:
        return None  # requeued: the next attempt decides
    if case.nodes_ended is None and not (failure is not None and _nobody_left(case)):
        return None
    for node in case.base.nodes:
        if is_launch_reason(node.reason):
            return _failed(case, State.LAUNCH_ERROR, launch_error(node))
    if _were_told_to_stop(case):
        return _terminated(case)
    if failure is None:
        return _failed(case, State.FAILED, _unnamed_failure(case))
    # A signal may have been the out-of-memory killer's, or a preemption's: the scheduler knows.
    return _failed(case, State.FAILED, blame(failure))


def _failed(case: Case, state: State, words: str) -> RunState:
    """For good only where nobody is left who may start another attempt, and where the signal that
    ended a rank cannot have been the out-of-memory killer's or a preemption's."""
    failure, end = case.base.failure, case.facts.end
    judged = end is not None and (failure is None or not failure.from_outside)
    if case.job_over or judged or case.supervisor_is_gone:
        return case.final(state, words)
    if case.supervisor_alive or case.job_state == JobState.RUNNING:
        return case.for_now(State.RUNNING, f"ending: {words}")
    return case.for_now(state, words)


def _were_told_to_stop(case: Case) -> bool:
    """SIGTERM came to the nodes first. After a failure SLURM sends it to the others as well."""
    told = {node.node for node in case.base.nodes if node.reason in ("terminated", "stopped")}
    failure = case.base.failure
    return bool(told) and (failure is None or failure.node in told)


def _nobody_left(case: Case) -> bool:
    if case.job_state == JobState.UNKNOWN:
        return not case.heart_beats
    return case.job_over


def _terminated(case: Case) -> RunState:
    """SIGTERM came to the nodes, and no cancel of ptx's own explains it."""
    orphaned = case.supervisor_alive is False and case.facts.supervisor_ended is None
    words = "the supervisor died" if orphaned else "its nodes were told to stop (SIGTERM)"
    if case.base.failure is not None:
        words = f"{words}; first to end was {blame(case.base.failure)}"
    if case.supervised or case.job_over:
        return case.final(State.FAILED, words)
    if case.job_state == JobState.RUNNING:
        return case.for_now(State.RUNNING, words)
    return case.for_now(State.UNKNOWN, f"{words}, and the scheduler has not said why")


def _unnamed_failure(case: Case) -> str:
    for rank, code in sorted(case.base.ranks.items()):
        if code:
            return f"rank {rank} {exit_words(code)}"
    missing = case.record.world_size - len(case.base.ranks)
    if missing <= 0:
        return "its ranks exited with 0, and yet a node does not call it complete"
    return f"{missing} of {case.record.world_size} ranks left no exit record"
