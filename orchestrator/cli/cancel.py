"""`ptx cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.errors import error_fields, tell
from orchestrator.cli.options import Json, Runs, only_root
from orchestrator.cli.output import emit, emit_json, next_commands
from orchestrator.errors import UserError
from orchestrator.runs.cancel import Ended, cancel_run
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.registry import elements, name_of, resolve


def cancel(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run ids, prefixes of them, @last, run folders, or arrays."
        ),
    ],
    runs: Runs = None,
    as_json: Json = False,
) -> int:
    """Cancel runs: their processes end within 30 s, and nothing restarts them.

    A run that was cancelled before is no error; one that has completed or failed is (exit 5), but
    not as one of an array.

    \b
    Examples:
      ptx cancel @last
      ptx cancel quickstart-4f ddp-9x
      ptx cancel sweep-7f3kq9
    """
    root = only_root(runs)
    layouts = _all_of(run, root)
    rows, worst = [], 0
    for layout, named in layouts.items():
        row, code = _cancel(layout, named=named, as_json=as_json)
        rows.append(row)
        worst = max(worst, code)
    if as_json:
        emit_json({"runs": rows})
    else:
        ending = [layout for layout, row in zip(layouts, rows, strict=True) if row["cancelled"]]
        next_commands(*(f"ptx wait {name_of(layout)}" for layout in ending[:1]))
    return worst


def _all_of(run: list[str], root: Path | None) -> dict[RunLayout, bool]:
    """Whether each was named itself, and not its array. All are found before the first is
    cancelled: a slip of the finger ends nothing."""
    found: dict[RunLayout, bool] = {}
    try:
        for text in run:
            # The last one first: the end of one that runs lets the next one start.
            if array := elements(text, root=root)[::-1]:
                found = dict.fromkeys(array, False) | found
            else:
                found[resolve(text, root=root)] = True
        return found
    except UserError as error:
        if len(run) > 1:
            error.message += " Nothing was cancelled."
        raise


def _cancel(layout: RunLayout, *, named: bool, as_json: bool) -> tuple[dict[str, Any], int]:
    row: dict[str, Any] = {"run_id": layout.run_id, "cancelled": False, "error": None}
    try:
        cancelled = cancel_run(layout)
    except UserError as error:  # the other runs are cancelled all the same
        if not named and isinstance(error, Ended):  # as others of its array
            if not as_json:
                emit(error.message)
            return row, 0
        if not as_json:
            tell(error.message, error.hint)
        return {**row, "error": error_fields(error)}, error.exit_code
    if not as_json:
        words = "is being cancelled" if cancelled else "was cancelled already"
        emit(f"{layout.run_id} {words}")
    return {**row, "cancelled": cancelled}, 0
