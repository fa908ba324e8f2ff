"""`ptx logs --follow`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import chain

from orchestrator.cli.logs_show import lines_for, say_why_silent
from orchestrator.cli.output import next_commands, note
from orchestrator.logs.dedupe import Dedupe
from orchestrator.logs.first_error import first_error
from orchestrator.logs.follow import Follower
from orchestrator.logs.line import Entry
from orchestrator.logs.select import select
from orchestrator.logs.skew import Skews
from orchestrator.logs.text import JsonLines, TextLines
from orchestrator.logs.vanished import sentence
from orchestrator.logs.wanted import Wanted
from orchestrator.logs.watch import Watch
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_plan
from orchestrator.runs.state import State

_FOLD_SECONDS = 1.0
"""How long a line waits for other ranks' to be counted with it."""


def follow_logs(layout: RunLayout, wanted: Wanted, *, as_json: bool, first: bool) -> int:
    """Until the run has ended: 0 if it completed, 1 if not; with `first`, after that error.

    Raises UserError, and BrokenPipeError where nobody reads on.
    """
    world_size = read_plan(layout).get("world_size")  # as of the newest submission
    select(layout, wanted.selection, world_size if isinstance(world_size, int) else 0)
    watch = Watch(layout)
    follower = Follower(layout, wanted.selection, start=wanted.start(Skews(layout)))
    lines = lines_for(wanted, follower.logs, as_json=as_json)
    teller = _Teller(layout)
    past = wanted.last(wanted.history(follower.history()))
    to_come = (wanted.filter(entries) for entries in follower.follow(watch.end))
    batches: Iterator[list[Entry]] = chain(past, to_come)
    if first:
        batches = first_error(batches)
    for text in _texts(batches, lines, Dedupe(follower.logs) if wanted.dedupe else None):
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
        if gone := follower.vanished():
            note(sentence(gone))
        if watch.latest is not None:
            teller.tell(watch.latest, silent=not follower.logs)
    end = watch.end()
    if end is None:  # the first error was found before the end
        next_commands(f"ptx why {layout.run_id}")
        return 0
    return _tell_end(layout, end, silent=not follower.logs)


def _texts(
    batches: Iterator[list[Entry]], lines: TextLines | JsonLines, dedupe: Dedupe | None
) -> Iterator[str]:
    """What to write for each batch, and at last what was held back."""
    if dedupe is None:
        yield from map(lines.render, batches)
        return
    for entries in batches:
        now = time.monotonic()
        folded = dedupe.feed(entries, now)
        yield lines.render_folded(folded + dedupe.settle(now - _FOLD_SECONDS))
    yield lines.render_folded(dedupe.finish())


class _Teller:
    """A line on stderr where the run waits, or begins anew; not one for every step."""

    def __init__(self, layout: RunLayout) -> None:
        self._run_id = layout.run_id
        self._told = ""
        self._attempt: int | None = None

    def tell(self, run: Observed, *, silent: bool) -> None:
        state = run.state
        began_anew = state.attempt is not None and self._attempt not in (None, state.attempt)
        if state.final or (not silent and state.state is State.RUNNING and not began_anew):
            self._attempt = state.attempt if state.attempt is not None else self._attempt
            return
        if state.attempt is not None:
            self._attempt = state.attempt
        words = state.reason
        if began_anew:
            words = f"attempt {state.attempt} begins"
        if words != self._told:
            self._told = words
            note(f"{self._run_id} {state.state.value}: {words}")


def _tell_end(layout: RunLayout, end: Observed, *, silent: bool) -> int:
    if silent:
        say_why_silent(layout)
    if end.state.state is State.COMPLETED:
        return 0
    if not silent:
        note(f"{layout.run_id} {end.state.words}")
        next_commands(f"ptx why {layout.run_id}")
    return 1
