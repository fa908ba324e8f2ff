"""What `ptx status` says of all runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.row_verdicts import with_verdicts
from orchestrator.cli.run_choice import Choice, count_words, cut
from orchestrator.cli.run_summary import run_summary
from orchestrator.cli.watching import redraws, rows_of_screen
from orchestrator.errors import UserError
from orchestrator.runs.root import runs_root
from orchestrator.runs.row import RunRow
from orchestrator.runs.survey import Survey, survey

SHOWN_ROWS = 30
"""On a terminal; elsewhere every run is shown."""


def show(root: Path | None, choice: Choice, *, as_json: bool) -> None:
    found = survey(root, None if as_json else _be_ready)
    chosen = choice.of(found.rows)
    shown = _shown(chosen, choice)
    for trouble in found.troubles:
        note(f"warning: {trouble}")
    if not found.rows:
        _check_readable(runs_root() if root is None else root)
    if as_json:
        emit_json(fields(chosen, shown))
    elif not found.rows and found.troubles:
        note("There are no other runs.")
    elif not found.rows:
        note("There are no runs yet.")
        next_commands("ptx submit jobs/quickstart.yaml --follow")
    elif not chosen:
        note(f"None of {count_words(found.rows)} is like that.")
        next_commands("ptx status --all")
    else:
        emit(text(with_verdicts(shown, found.index)))
        _tell_more(chosen, shown)
        next_commands(f"ptx status {shown[0].run_id}")
    found.index.save()


def _be_ready() -> None:
    """To show a table: what it takes, rules of verdicts among it, is a tenth of a second to import
    and read."""
    from orchestrator.cli import run_table  # noqa: F401
    from orchestrator.diagnose import brief, why  # noqa: F401
    from orchestrator.diagnose.rules import known

    known()


def fields(chosen: Sequence[RunRow], shown: Sequence[RunRow]) -> dict[str, Any]:
    return {"runs": [run_summary(row) for row in shown], "left_out": len(chosen) - len(shown)}


def text(rows: Sequence[RunRow]) -> str:
    from orchestrator.cli.run_table import run_table

    told = [{**run_summary(row), "reason": row.brief} for row in rows]
    return run_table(told, time.time())


def _shown(chosen: list[RunRow], choice: Choice) -> list[RunRow]:
    if choice.limit is not None:
        return chosen[: choice.limit]
    return cut(chosen, SHOWN_ROWS) if sys.stdout.isatty() and not choice.everything else chosen


def picture(root: Path | None, choice: Choice) -> str:
    """For --watch: as many as the screen has room for, and how all of them stand."""
    found: Survey = survey(root, _be_ready)
    chosen = choice.of(found.rows)
    heads = [*(f"warning: {trouble}" for trouble in found.troubles), count_words(chosen)]
    shown = _shown(chosen, choice)
    if redraws():
        shown = cut(shown, max(1, rows_of_screen() - len(heads) - 2))
    shown = with_verdicts(shown, found.index)
    found.index.save()
    return "\n".join([*heads, "", text(shown)] if shown else heads)


def _tell_more(chosen: Sequence[RunRow], shown: Sequence[RunRow]) -> None:
    if len(chosen) > len(shown):
        note(
            f"{count_words(chosen)}. {len(shown)} are shown: --all shows all, --limit N more; "
            "--state, --name, --since and --spec choose."
        )


def _check_readable(folder: Path) -> None:
    """Nothing to be seen is not the same as nothing there. Raises UserError."""
    try:
        os.listdir(folder)  # noqa: PTH208 - the error is wanted at once
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"The folder for runs, {folder}, cannot be read: {error.strerror}.",
            hint="Choose another one with --runs DIR or PTX_RUNS.",
        ) from error
