"""`ptx top`."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import Json, RunArgument, Runs, only_root
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.still_there import still_there
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import observe_one
from orchestrator.runs.registry import name_of, resolve
from orchestrator.runs.state import State

if TYPE_CHECKING:
    from orchestrator.metrics.board import Snapshot

INTERRUPTED = 130
"""What a shell shows for a program that Ctrl-C ended."""
_EVERY = 2.0
_PER_NODE = 0.01
"""Seconds between two looks: two small files a node are read at each."""
_TICK = 0.2

Once = Annotated[bool, typer.Option("--once", help="Print one table and end.")]


def top(run: RunArgument, once: Once = False, runs: Runs = None, as_json: Json = False) -> None:
    """Show a live table of nodes and ranks: steps, GPUs, memory, heartbeats, and who is slow.

    It ends when the run ends. Off a terminal one table is printed, as with --once.

    \b
    S/STEP: a rank's own time a step in forward and for data, of the slowest ranks; `slow` is one
    that all others wait for. The last report of rank 0 says it, so with fsdp, zero 3, tensor and
    pipeline parallelism nobody knows.

    \b
    Examples:
      ptx top @last
      ptx top quickstart-4f --once
      ptx top quickstart-4f --json
    """
    from orchestrator.cli.top_page import Room, top_fields, top_lines
    from orchestrator.metrics.board import Board

    layout = resolve(run, root=only_root(runs))
    live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if live and not once and not as_json:
        with still_there([layout]):
            code = _watch(layout)
        raise typer.Exit(code)
    with still_there([layout]):
        observed, troubles = observe_one(layout)
        seen = Board(layout).look(observed)
    for trouble in troubles:
        note(f"warning: {trouble}")
    if as_json:
        emit_json(top_fields(seen))
        return
    emit("\n".join(top_lines(seen, Room.of_page())))
    next_commands(*_what_now(seen))


def _watch(layout: RunLayout) -> int:
    """Until the run has ended; 0, or 130 for Ctrl-C, which ends the showing alone."""
    from orchestrator.cli.full_screen import FullScreen
    from orchestrator.cli.top_page import Room, end_lines, top_lines
    from orchestrator.logs.watch import Watch
    from orchestrator.metrics.board import Board

    first, _ = observe_one(layout, ask=False)
    board, watch = Board(layout), Watch(layout)
    seen = board.look(first)
    try:
        with FullScreen() as screen:
            while watch.end() is None:
                screen.show(top_lines(seen, Room.of_screen()))
                due = time.monotonic() + max(_EVERY, _PER_NODE * len(seen.nodes))
                size = Room.of_screen()
                while watch.end() is None and time.monotonic() < due and Room.of_screen() == size:
                    time.sleep(_TICK)
                seen = board.look(watch.latest or first)
    except KeyboardInterrupt:
        note(f"{layout.run_id} goes on without you.")
        next_commands(f"ptx top {name_of(layout)}", f"ptx cancel {name_of(layout)}")
        return INTERRUPTED
    emit("\n".join([*top_lines(seen, Room.of_page()), "", end_lines(seen, Room.of_page())]))
    next_commands(*_what_now(seen))
    return 0


def _what_now(seen: Snapshot) -> list[str]:
    name, state = name_of(seen.run.layout), seen.run.state.state
    if state is State.COMPLETED:
        return [f"ptx plot {name}"] if seen.report else [f"ptx logs {name} --tail 50"]
    if state.ended:
        return [f"ptx why {name}"]
    return [f"ptx why {name}", f"ptx logs {name} --follow"]
