"""Why a run failed, waits, or is not known: from what it left behind to one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.agent.classes import NOT_AGAIN
from orchestrator.diagnose.evidence import line_of
from orchestrator.diagnose.failure import of_attempt
from orchestrator.diagnose.match import Ending, explain
from orchestrator.diagnose.root import Case
from orchestrator.diagnose.rules import Rule, all_rules
from orchestrator.diagnose.tail import read_tail
from orchestrator.diagnose.verdict import Before, Verdict
from orchestrator.runs.attempts import history
from orchestrator.runs.facts import gather
from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_record
from orchestrator.runs.state import RunState, State
from orchestrator.runs.submissions import record_now
from orchestrator.runs.words import clause, sentence

if TYPE_CHECKING:
    from orchestrator.diagnose.performance import Finding


def one_line(run: Observed, rules: Sequence[Rule] | None = None) -> str:
    """The verdict on a run in one sentence."""
    return why(run, rules).sentence


def why(
    run: Observed, rules: Sequence[Rule] | None = None, *, attempt: int | None = None
) -> Verdict:
    """The verdict on a run, or on one `attempt` of it; without one, on the newest.

    Reads exit records, events and the ends of logs, never whole logs. Raises UserError for a
    person's own rules that cannot be read.
    """
    rules = tuple(all_rules() if rules is None else rules)
    if attempt is not None and attempt != run.state.attempt:
        return _of(*_earlier(run, attempt), rules)
    verdict = _of(run, run.state, rules)
    if verdict.kind == "failed":
        return replace(verdict, sentence=f"{verdict.sentence}{_given_up(run, verdict.sentence)}")
    if verdict.kind not in ("completed", "running", "waiting"):
        return verdict
    # A table judges runs that failed, and would wait for what it does not need.
    from orchestrator.diagnose.performance import findings
    from orchestrator.diagnose.standstill import standstill

    found: tuple[Finding, ...] = ()
    if verdict.kind != "waiting" and run.state.attempt is not None:
        found = findings(run.layout, run.state.attempt)
    if verdict.kind == "running":
        verdict = standstill(run, verdict) or verdict
    return replace(verdict, before=_before(run, rules), findings=found)


def _of(run: Observed, state: RunState, rules: tuple[Rule, ...]) -> Verdict:
    name = state.state.value
    if state.state is State.COMPLETED:
        return Verdict("completed", name, sentence(f"nothing failed: {clause(state.reason)}"))
    if state.state in (State.PENDING, State.SUBMITTING):
        return Verdict("waiting", name, state.reason, state.attempt)
    if state.attempt is None or not state.nodes:
        return _without_nodes(run, state, rules)
    if state.state is State.CANCELLED:
        words = sentence(f"nothing failed: {clause(state.reason)}")
        return Verdict("ended", name, words, state.attempt)
    if state.state.ended or state.failure is not None:
        return of_attempt(run, state, rules)
    if state.state is State.RUNNING:
        words = sentence(f"nothing has failed so far: {clause(state.reason)}")
        return Verdict("running", name, words, state.attempt)
    return Verdict("unknown", name, sentence(state.words), state.attempt)


def _given_up(run: Observed, said: str) -> str:
    """Why nobody starts a run again that may be; empty where that was said, or does not arise."""
    newest = next((one for one in history(run.events) if one.number == run.state.attempt), None)
    if newest is None or newest.retry or not run.state.final or NOT_AGAIN not in newest.message:
        return ""
    why_not = sentence(newest.message.rpartition(NOT_AGAIN)[2])
    return "" if clause(why_not) in said else f" Not started again: {clause(why_not)}"


def _earlier(run: Observed, attempt: int) -> tuple[Observed, RunState]:
    """The run, of the size that it had, and the state as it was when an attempt had ended."""
    upto = [event for event in run.events if event.integer("attempt", -1) <= attempt]
    run = run._replace(record=record_now(read_record(run.layout) or run.record, upto))
    base = gather(upto).base._replace(attempt=attempt)
    ended = next((one for one in history(run.events) if one.number == attempt), None)
    if ended is None or ended.end_class is None:
        return run, base._replace(state=State.FAILED, reason="this attempt ended")
    return run, base._replace(state=ended.state, reason=ended.message or ended.end_class)


def _before(run: Observed, rules: tuple[Rule, ...]) -> Before | None:
    """Why the last attempt that was over was over, where the run goes on or went on."""
    over = [one for one in history(run.events) if one.ended is not None]
    bad = [one for one in over if one.end_class not in (None, State.COMPLETED.value)]
    if not bad:
        return None
    verdict = _of(*_earlier(run, bad[-1].number), rules)
    return Before(bad[-1].number, verdict.state, verdict.sentence)


def _without_nodes(run: Observed, state: RunState, rules: Sequence[Rule]) -> Verdict:
    """It never came to a node, or nobody knows whether it did."""
    tail = read_tail(run.layout.scheduler_log)
    match = None
    if state.state.ended:
        match = explain(rules, Ending("scheduler", ended=state.state.value, said=tail.lines))
    case = Case(run.layout, 0, (), run.record.world_size, tuple(rules))
    kind = "failed" if state.state.ended and state.state is not State.CANCELLED else "unknown"
    kind = "ended" if state.state is State.CANCELLED else kind
    if match is None:
        return Verdict(kind, state.state.value, state.reason, state.attempt)
    return Verdict(
        kind,
        match.rule.state,
        sentence(f"{state.reason.rstrip('.')}: {match.cause}"),
        state.attempt,
        rule=match.rule.id,
        cause=sentence(match.cause),
        next=match.rule.next,
        evidence=() if match.line is None else (line_of(case, tail, match),),
    )
