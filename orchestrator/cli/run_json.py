"""A run as JSON. These keys are public: tests/cli/public.json holds them."""

from __future__ import annotations

import time
from typing import Any

from orchestrator.cli.run_summary import run_summary
from orchestrator.runs.attempts import Attempt, history, restarts, resumed
from orchestrator.runs.bundles import current_bundle
from orchestrator.runs.goodput import Goodput, Report, goodput, reports, trainings, with_newest
from orchestrator.runs.last_steps import NONE, last_steps
from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_metrics
from orchestrator.runs.state import Failure, NodeState


def run_details(run: Observed) -> dict[str, Any]:
    """Everything about one run."""
    layout, record, state = run.layout, run.record, run.state
    return {
        **run_summary(run.row()),
        "user": record.user,
        "host": record.host,
        "spec_path": record.spec_path,
        "attempts": list(state.attempts),
        "history": [_attempt(attempt) for attempt in history(run.events)],
        "restarts": restarts(run.events),
        "resumed": len(resumed(run.events)),
        "goodput": _goodput(run_goodput(run, time.time())),
        "node_states": [_node(node) for node in state.nodes],
        "first_failure": _failure(state.failure),
        "files": {
            "spec": str(layout.spec),
            "bundle": str(current_bundle(layout, run.events)),
            "scheduler_log": str(layout.scheduler_log),
            "logs": [str(layout.node(state.attempt or 0, node.node)) for node in state.nodes],
        },
    }


def newest_attempt(run: Observed) -> int | None:
    """That has begun; a resumed run that still waits has those of before."""
    return max(run.state.attempts, default=None)


def run_goodput(run: Observed, now: float) -> Goodput | None:
    """None where nothing was measured. `now` in epoch seconds."""
    attempts = history(run.events)
    if not attempts:
        return None
    end = run.state.ended if run.state.final and run.state.ended is not None else now
    known = last_steps(run.events)
    parts: list[list[Report]] = []
    measured = more_lost = False
    for attempt in attempts:
        last = known.get(attempt.number, NONE)
        told = reports(read_metrics(run.layout, attempt.number))
        own = trainings(with_newest(told, last.newest))
        parts += own
        measured = measured or bool(told)
        cut_short = not last.orderly and (bool(own) or not last.idle)
        more_lost = more_lost or len(own) > 1 or (cut_short and attempt is not attempts[-1])
    return goodput(parts, end - attempts[0].started, more_lost=more_lost) if measured else None


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.number,
        "started": attempt.started,
        "ended": attempt.ended,
        "class": attempt.end_class,
        "message": attempt.message or None,
        "retry": attempt.retry,
        "counted": attempt.counted,
        "where": attempt.where,
    }


def _goodput(found: Goodput | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "effective_training_time_ratio": found.ratio,
        "kept_seconds": found.kept_seconds,
        "wall_seconds": found.wall_seconds,
        "kept_steps": found.kept_steps,
        "lost_steps": found.lost_steps,
    }


def _node(node: NodeState) -> dict[str, Any]:
    return {
        "node": node.node,
        "host": node.host,
        "started": node.started,
        "ended": node.ended,
        "reason": node.reason or None,
        "ranks": {str(rank): code for rank, code in sorted(node.ranks.items())},
    }


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "node": failure.node,
        "rank": failure.rank,
        "exit_code": failure.code,
        "signal": failure.signal,
        "t": failure.t,
        "message": failure.message or None,
    }
