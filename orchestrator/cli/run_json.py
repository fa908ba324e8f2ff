"""A run as JSON. These keys are public: tests/cli/public.json holds them."""

from __future__ import annotations

from typing import Any

from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_last_metrics
from orchestrator.runs.state import Failure, NodeState


def run_summary(run: Observed) -> dict[str, Any]:
    """One row of the table. Times in epoch seconds."""
    state, record = run.state, run.record
    return {
        "run_id": record.run_id,
        "name": record.name,
        "state": state.state.value,
        "reason": state.reason,
        "created": record.created,
        "submitted": state.submitted,
        "started": state.started,
        "ended": state.ended,
        "scheduler": record.scheduler,
        "launcher": record.launcher,
        "job_id": state.job_id,
        "attempt": state.attempt,
        "nodes": record.nodes,
        "procs_per_node": record.procs_per_node,
        "world_size": record.world_size,
        "metrics": _metrics(run),
        "run_dir": str(run.layout.root),
    }


def run_details(run: Observed) -> dict[str, Any]:
    """Everything about one run."""
    layout, record, state = run.layout, run.record, run.state
    return {
        **run_summary(run),
        "user": record.user,
        "host": record.host,
        "spec_path": record.spec_path,
        "attempts": list(state.attempts),
        "node_states": [_node(node) for node in state.nodes],
        "first_failure": _failure(state.failure),
        "files": {
            "spec": str(layout.spec),
            "bundle": str(layout.bundle),
            "scheduler_log": str(layout.scheduler_log),
            "logs": [str(layout.node(state.attempt or 0, node.node)) for node in state.nodes],
        },
    }


def _metrics(run: Observed) -> dict[str, Any] | None:
    """The last record of the newest attempt."""
    if run.state.attempt is None:
        return None
    metrics = read_last_metrics(run.layout, run.state.attempt)
    return None if metrics is None else {k: v for k, v in metrics.items() if k != "v"}


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
