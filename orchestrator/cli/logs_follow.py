"""`ptx logs --follow`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import chain

from orchestrator.cli.last_words import reason
from orchestrator.cli.logs_show import lines_for, say_why_silent
from orchestrator.cli.output import next_commands, note
from orchestrator.logs.dedupe import Dedupe, Folded
from orchestrator.logs.first_error import first_error
from orchestrator.logs.follow import Follower
from orchestrator.logs.line import Entry
from orchestrator.logs.select import select
from orchestrator.logs.skew import Skews
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
    plan = read_plan(layout)
    sizes = (plan.get(name) for name in ("world_size", "nodes"))
    select(layout, wanted.selection, *(size if isinstance(size, int) else 0 for size in sizes))
    watch = Watch(layout)
    follower = Follower(layout, wanted.selection, start=wanted.start(Skews(layout)))
    lines = lines_for(wanted, follower.logs, as_json=as_json)
    teller = _Teller(layout)
    past = wanted.history(follower.history())
    to_come = (wanted.filter(entries) for entries in follower.follow(watch.end))
    texts: Iterator[str]
    if wanted.dedupe:
        folded = wanted.last(Dedupe(follower.logs).fold(past))
        new = _as_they_come(to_come, Dedupe(follower.logs))
        texts = map(lines.render_folded, chain(folded, new))
    else:
        batches: Iterator[list[Entry]] = chain(wanted.last(past), to_come)
        texts = map(lines.render, first_error(batches) if first else batches)
    for text in texts:
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


def _as_they_come(batches: Iterator[list[Entry]], dedupe: Dedupe) -> Iterator[list[Folded]]:
    """Each line after a second at most, and at last what was held back."""
    for entries in batches:
        now = time.monotonic()
        folded = dedupe.feed(entries, now)
        yield folded + dedupe.settle(now - _FOLD_SECONDS)
    yield dedupe.finish()


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
        note(f"{layout.run_id} {end.state.state.value}: {reason(end)}")
        next_commands(f"ptx why {layout.run_id}")
    return 1
