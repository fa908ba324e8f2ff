"""`ptx status`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Json, Runs, only_root
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.run_json import run_details, run_summary
from orchestrator.errors import UserError
from orchestrator.runs.observe import Observed, observe, observe_one
from orchestrator.runs.registry import all_runs, name_of, resolve
from orchestrator.runs.root import runs_root
from orchestrator.runs.state import State

SHOWN_ROWS = 30
"""On a terminal; elsewhere every run is shown."""


def status(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="Run id, a prefix of one, @last, @last~1, or a run folder's path."
        ),
    ] = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Show all runs in a table, or everything about one.

    \b
    Examples:
      ptx status
      ptx status @last
      ptx status quickstart-4f --json
    """
    if run is None:
        _table(runs, as_json=as_json)
    else:
        _page(run, runs, as_json=as_json)


def _table(runs: str | None, *, as_json: bool) -> None:
    known = all_runs(root=only_root(runs))
    shown = known[:SHOWN_ROWS] if sys.stdout.isatty() and not as_json else known
    look = observe(shown)
    _tell_troubles(look.troubles)
    rows = [run_summary(run) for run in look.runs]
    if not rows:
        _check_readable(runs_root(runs))
    if as_json:
        emit_json({"runs": rows})
        return
    if not rows:
        note("There are no runs yet.")
        next_commands("ptx submit jobs/quickstart.yaml --follow")
        return
    from orchestrator.cli.run_table import brief, run_table

    told = [{**row, "reason": brief(run.state)} for row, run in zip(rows, look.runs, strict=True)]
    emit(run_table(told, time.time()))
    if len(known) > len(shown):
        note(f"… and {len(known) - len(shown)} older runs; `ptx status | less` shows all of them.")
    next_commands(f"ptx status {rows[0]['run_id']}")


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


def _page(text: str, runs: str | None, *, as_json: bool) -> None:
    layout = resolve(text, root=only_root(runs))
    run, troubles = observe_one(layout)
    _tell_troubles(troubles)
    details = run_details(run)
    if as_json:
        emit_json(details)
        return
    from orchestrator.cli.run_page import run_page

    emit(run_page(run, details["metrics"], time.time()))
    next_commands(*_what_now(run))


def _tell_troubles(troubles: tuple[str, ...]) -> None:
    for trouble in troubles:
        note(f"warning: {trouble}")


def _what_now(run: Observed) -> list[str]:
    return [*_where_to_look(run), *_how_to_go_on(run)]


def _how_to_go_on(run: Observed) -> list[str]:
    """A run that has lost its job, and not its work."""
    lost = run.state.final and run.state.state is not State.COMPLETED
    return [f"ptx resume {name_of(run.layout)}"] if lost and _has_saved(run) else []


def _has_saved(run: Observed) -> bool:
    from orchestrator.checkpoints.names import committed_folders

    return bool(committed_folders(run.layout.checkpoints))


def _where_to_look(run: Observed) -> list[str]:
    run_id, state = name_of(run.layout), run.state
    if state.failure is not None and state.state.ended:
        return [f"ptx logs {run_id} --rank {state.failure.rank} --tail 50"]
    if state.state is State.RUNNING:
        return [f"ptx logs {run_id} --follow", f"ptx cancel {run_id}"]
    if state.state in (State.PENDING, State.SUBMITTING):
        return [f"ptx wait {run_id}", f"ptx cancel {run_id}"]
    if state.attempt is None and not run.layout.scheduler_log.exists():
        return ["ptx status"]  # it never got as far as a log
    return [f"ptx logs {run_id} --tail 50"]
