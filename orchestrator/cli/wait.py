"""`ptx wait`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cli.errors import error_fields
from orchestrator.cli.last_words import reason
from orchestrator.cli.options import Json, RunArgument, Runs, only_root, seconds
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.run_json import run_details
from orchestrator.errors import JobFailed
from orchestrator.runs.observe import Observed
from orchestrator.runs.registry import name_of, resolve
from orchestrator.runs.state import State
from orchestrator.runs.wait import wait_for


def wait(
    run: RunArgument,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="TIME", help="Give up after 90s, 15m, 2h; exit 124."),
    ] = None,
    runs: Runs = None,
    as_json: Json = False,
) -> int:
    """Wait until a run has ended; exit with 0 if it completed and 1 if not.

    \b
    Examples:
      ptx wait @last && echo trained
      ptx wait quickstart-4f --timeout 2h
    """
    deadline = time.monotonic() + seconds(timeout, "--timeout") if timeout is not None else None
    layout = resolve(run, root=only_root(runs))
    ended = wait_for(layout, deadline=deadline, tell=_ignore if as_json else _Teller())
    return _tell_end(ended, as_json=as_json)


class _Teller:
    """A line for each new state, so that a long wait is seen to be alive."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, run: Observed) -> None:
        state = run.state
        if state.reason != self._told and not state.final:
            note(f"{run.record.run_id} {state.words}")
            self._told = state.reason


def _ignore(_: Observed) -> None:
    return None


def _tell_end(run: Observed, *, as_json: bool) -> int:
    run_id, state, name = run.record.run_id, run.state, name_of(run.layout)
    if state.state is State.COMPLETED:
        if as_json:
            emit_json(run_details(run))
        else:
            emit(f"{run_id} completed: {state.reason}")
            next_commands(f"ptx status {name}")
        return 0
    words = f"{run_id} {state.state.value}: {reason(run)}"
    error = JobFailed(words, hint=f"`ptx why {name}` shows more.")
    if not as_json:
        raise error
    emit_json({**run_details(run), "error": error_fields(error)})
    return error.exit_code
