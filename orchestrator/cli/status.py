"""`ptx status`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import run_list, watching
from orchestrator.cli.options import Json, Runs, only_root, seconds
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.run_choice import SORTS, Choice, parse_states
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.registry import name_of, resolve
from orchestrator.runs.state import State

if TYPE_CHECKING:  # the table needs none of it
    from orchestrator.cli.last_words import Judged
    from orchestrator.runs.observe import Observed, Observer

WATCH_SECONDS = "30s"
"""A scheduler that many share is asked this often."""


def status(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="Run id, a prefix of one, @last, @last~1, or a run folder's path."
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help="Such as failed; failed,cancelled; live; ended."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="A part of the run id, or a pattern with *."),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option("--spec", metavar="TEXT", help="A part of the spec's path, or a pattern."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Submitted within the last 90m, 2h, 7d."),
    ] = None,
    sort: Annotated[
        str, typer.Option("--sort", metavar="KEY", help=f"By {', '.join(SORTS)}.")
    ] = "age",
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="Show at most N runs."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Show every run, on a terminal too.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="TIME", help="With --watch, how often. Default: 30s."),
    ] = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Show all runs in a table, or everything about one.

    A terminal gets the live runs and the newest, and how many more there are.

    --watch of all runs goes on until Ctrl-C, since new ones may come; of one RUN it ends with it.
    With --json each look is one object on a line of its own, until nobody reads on.

    \b
    Examples:
      ptx status
      ptx status @last --watch
      ptx status --state failed --since 2d
      ptx status --name 'llama*' --sort size --all
      ptx status quickstart-4f --json
    """
    if every is not None and not watch:
        raise UserError("--every says how often --watch looks.", hint="Add --watch.")
    pause = seconds(every or WATCH_SECONDS, "--every")
    if pause < 1:
        raise UserError(f"--every {every} is too often.", hint="At least 1s: others ask, too.")
    if run is None:
        choice = replace(
            _choice(state, name, spec, since, sort), limit=limit, everything=everything
        )
        _table(only_root(runs), choice, pause if watch else None, as_json=as_json)
        return
    if state or name or spec or since or everything or limit:
        raise UserError(
            "These options choose among all runs, and RUN names one.", hint="Leave one out."
        )
    _page(resolve(run, root=only_root(runs)), pause if watch else None, as_json=as_json)


def _choice(
    states: list[str] | None, name: str | None, spec: str | None, since: str | None, sort: str
) -> Choice:
    if sort not in SORTS:
        raise UserError(f"--sort {sort!r} is no key.", hint=f"There are {', '.join(SORTS)}.")
    return Choice(
        states=parse_states(states or ()),
        name=name,
        spec=spec,
        since=None if since is None else time.time() - seconds(since, "--since"),
        sort=sort,
    )


def _table(root: Path | None, choice: Choice, pause: float | None, *, as_json: bool) -> None:
    if pause is None:
        run_list.show(root, choice, as_json=as_json)
    elif as_json:
        while True:
            run_list.show(root, choice, as_json=True)
            sys.stdout.flush()
            watching.pause(pause)
    else:
        watching.watch(lambda: (run_list.picture(root, choice), False), pause)


def _page(layout: RunLayout, pause: float | None, *, as_json: bool) -> None:
    from orchestrator.cli.last_words import judged
    from orchestrator.cli.run_json import run_details
    from orchestrator.runs.observe import Observer

    observer = Observer(layout)
    if pause is None:
        run, troubles = observer.look()
        _tell_troubles(troubles)
        if as_json:
            emit_json(run_details(run))
            return
        found = judged(run)
        emit(_run_page(run, found))
        next_commands(*_what_now(run, found))
    elif as_json:
        while not (run := observer.look()[0]).state.final:
            emit_json(run_details(run))
            sys.stdout.flush()
            watching.pause(pause)
        emit_json(run_details(run))
    else:
        watching.watch(lambda: _picture(observer), pause)


def _run_page(run: Observed, found: Judged | None = None) -> str:
    from orchestrator.cli.run_json import run_details
    from orchestrator.cli.run_page import run_page

    return run_page(run, run_details(run)["metrics"], time.time(), found)


def _picture(observer: Observer) -> tuple[str, bool]:
    run, troubles = observer.look()
    warnings = [f"warning: {trouble}" for trouble in troubles]
    return "\n".join([*warnings, _run_page(run)]), run.state.final


def _tell_troubles(troubles: tuple[str, ...]) -> None:
    for trouble in troubles:
        note(f"warning: {trouble}")


def _what_now(run: Observed, found: Judged) -> list[str]:
    return [*_where_to_look(run, found), *_how_to_go_on(run)]


def _how_to_go_on(run: Observed) -> list[str]:
    """A run that has lost its job, and not its work."""
    lost = run.state.final and run.state.state is not State.COMPLETED
    return [f"ptx resume {name_of(run.layout)}"] if lost and _has_saved(run) else []


def _has_saved(run: Observed) -> bool:
    from orchestrator.checkpoints.names import committed_folders

    try:
        return bool(committed_folders(run.layout.checkpoints))
    except OSError:  # what cannot be looked at is told by the commands that need it
        return False


def _where_to_look(run: Observed, found: Judged) -> list[str]:
    run_id, state = name_of(run.layout), run.state
    if found.rank is not None and state.state.ended:
        return [f"ptx logs {run_id} --rank {found.rank} --tail 50"]
    if state.state is State.RUNNING:
        return [f"ptx logs {run_id} --follow", f"ptx cancel {run_id}"]
    if state.state in (State.PENDING, State.SUBMITTING):
        return [f"ptx wait {run_id}", f"ptx cancel {run_id}"]
    if state.attempt is None and not run.layout.scheduler_log.exists():
        return ["ptx status"]  # it never got as far as a log
    return [f"ptx logs {run_id} --tail 50"]
