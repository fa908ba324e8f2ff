"""A row of the table of runs as JSON. These keys are public: tests/cli/public.json holds them."""

from __future__ import annotations

import math
from typing import Any

from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import read_last_metrics
from orchestrator.runs.row import RunRow


def run_summary(row: RunRow) -> dict[str, Any]:
    """One row of the table. Times in epoch seconds."""
    return {
        "run_id": row.run_id,
        "name": row.name,
        "state": row.state,
        "reason": row.reason,
        "created": row.created,
        "submitted": row.submitted,
        "started": row.started,
        "ended": row.ended,
        "scheduler": row.scheduler,
        "launcher": row.launcher,
        "job_id": row.job_id,
        "attempt": max(row.attempts, default=None),
        "nodes": row.nodes,
        "procs_per_node": row.procs_per_node,
        "world_size": row.world_size,
        "metrics": _metrics(row),
        "run_dir": row.path,
    }


def _metrics(row: RunRow) -> dict[str, Any] | None:
    """The last record of the newest attempt that left one."""
    layout = RunLayout(row.path)
    for attempt in reversed(row.attempts):
        metrics = read_last_metrics(layout, attempt)
        if metrics is not None:
            return {key: _finite(value) for key, value in metrics.items() if key != "v"}
    return None


def _finite(value: Any) -> Any:
    """JSON has no word for a loss that is no number."""
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
