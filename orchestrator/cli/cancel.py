"""`ptx cancel`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.cli.errors import error_fields, tell
from orchestrator.cli.options import Json, Runs, only_root
from orchestrator.cli.output import emit, emit_json, next_commands
from orchestrator.errors import UserError
from orchestrator.runs.cancel import cancel_run
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.registry import resolve


def cancel(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run ids, prefixes of them, @last, or run folders."),
    ],
    runs: Runs = None,
    as_json: Json = False,
) -> int:
    """Cancel runs: their processes end within 30 s, and nothing restarts them.

    A run that was cancelled before is no error; one that has completed or failed is (exit 5).

    \b
    Examples:
      ptx cancel @last
      ptx cancel quickstart-4f ddp-9x
    """
    root = only_root(runs)
    layouts = [resolve(text, root=root) for text in run]
    rows, worst = [], 0
    for layout in dict.fromkeys(layouts):
        row, code = _cancel(layout, as_json=as_json)
        rows.append(row)
        worst = max(worst, code)
    if as_json:
        emit_json({"runs": rows})
    else:
        ending = [row["run_id"] for row in rows if row["cancelled"]]
        next_commands(*(f"ptx wait {run_id}" for run_id in ending[:1]))
    return worst


def _cancel(layout: RunLayout, *, as_json: bool) -> tuple[dict[str, Any], int]:
    row: dict[str, Any] = {"run_id": layout.run_id, "cancelled": False, "error": None}
    try:
        cancelled = cancel_run(layout)
    except UserError as error:  # the other runs are cancelled all the same
        if not as_json:
            tell(error.message, error.hint)
        return {**row, "error": error_fields(error)}, error.exit_code
    if not as_json:
        words = "is being cancelled" if cancelled else "was cancelled already"
        emit(f"{layout.run_id} {words}")
    return {**row, "cancelled": cancelled}, 0
