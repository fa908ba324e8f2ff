"""`ptx logs` of what is there already."""

from __future__ import annotations

import os
import sys

from orchestrator.cli.output import coloured, next_commands, note
from orchestrator.errors import NotFound
from orchestrator.logs.dedupe import Dedupe
from orchestrator.logs.first_error import first_error
from orchestrator.logs.merge import merge
from orchestrator.logs.output import Output
from orchestrator.logs.reader import LogReader
from orchestrator.logs.select import RankLog, select
from orchestrator.logs.skew import Skews
from orchestrator.logs.text import JsonLines, TextLines
from orchestrator.logs.vanished import sentence, vanished
from orchestrator.logs.wanted import Wanted
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.state import State

_LARGE = 8 * 1024 * 1024
"""Bytes of logs below which all is shown before numpy would be there."""
_NUMPY = 2
"""The oldest version that will do."""
_NOTHING_PRINTED = "nothing was printed"
_NOTHING_WANTED = "no line matches"


def show_logs(layout: RunLayout, wanted: Wanted, *, as_json: bool, first: bool) -> int:
    """Raises UserError, of what went away once all else was shown, and BrokenPipeError where nobody
    reads on."""
    logs = select(layout, wanted.selection)
    if not logs:
        return say_why_silent(layout)
    code = _show(layout, logs, wanted, as_json=as_json, first=first)
    if gone := vanished(logs):
        raise NotFound(sentence(gone), hint="What could be read of it is shown.")
    return code


def _show(
    layout: RunLayout, logs: list[RankLog], wanted: Wanted, *, as_json: bool, first: bool
) -> int:
    skews = Skews(layout)
    start = wanted.start(skews)
    readers = [
        LogReader(log.path, source, start(log), shift=skews.of(log))
        for source, log in enumerate(logs)
    ]
    lines = lines_for(wanted, logs, as_json=as_json)
    is_plain = wanted.is_everything and not first
    if is_plain and isinstance(lines, TextLines) and _show_everything(readers, lines):
        return 0
    batches = wanted.history(merge(readers))
    nothing = True
    if wanted.dedupe:
        for some in wanted.last(Dedupe(logs).fold(batches)):
            sys.stdout.write(lines.render_folded(some))
            nothing = nothing and not some
    else:
        for entries in wanted.last(first_error(batches) if first else batches):
            sys.stdout.write(lines.render(entries))
            nothing = nothing and not entries
    if nothing and wanted.tail != 0:
        note(_no_error(wanted, logs) if first else _nothing(wanted))
    if first and (not nothing or _failed(layout)):
        next_commands(f"ptx why {layout.run_id}")
    return 0


def _failed(layout: RunLayout) -> bool:
    """As far as its folder tells: then there is something to explain that nobody printed."""
    from orchestrator.runs.observe import observe_one

    state = observe_one(layout, ask=False)[0].state.state
    return state.ended and state not in (State.COMPLETED, State.CANCELLED)


def _show_everything(readers: list[LogReader], lines: TextLines) -> bool:
    """Whether it was done: not without numpy, which who trains has."""
    if lines.is_coloured or sum(reader.stored_size for reader in readers) < _LARGE:
        return False
    output = _output()
    if output is None or not _has_numpy():
        return False
    from orchestrator.logs.everything import write_everything

    sys.stdout.flush()
    return write_everything(readers, lines, output)


def _has_numpy() -> bool:
    # Its OpenBLAS starts a thread for each processor, which login nodes may not allow.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        import numpy.typing

        return int(numpy.__version__.partition(".")[0]) >= _NUMPY
    except Exception:  # one that is broken, or half deleted, raises anything
        return False


def _output() -> Output | None:
    """None where stdout is no descriptor, or one that takes other bytes than ASCII's."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:
        return None
    output = Output(descriptor, sys.stdout.encoding, sys.stdout.errors or "strict")
    return output if output.keeps_ascii else None


def _nothing(wanted: Wanted) -> str:
    return _NOTHING_WANTED if wanted.is_part else _NOTHING_PRINTED


def _no_error(wanted: Wanted, logs: list[RankLog]) -> str:
    """Of lines that were left out nothing is said: there may be an error among them."""
    chosen = wanted.selection
    if wanted.is_part or chosen.ranks is not None or chosen.nodes is not None:
        return "none of the chosen lines is an error"
    if chosen.all_attempts or (chosen.attempt is None and logs[0].attempt == 0):
        return "no rank printed an error"
    return f"no rank printed an error in attempt {logs[0].attempt}"


def lines_for(wanted: Wanted, logs: list[RankLog], *, as_json: bool) -> TextLines | JsonLines:
    if as_json:
        return JsonLines(logs)
    return TextLines(logs, colour=coloured(sys.stdout), attempts=wanted.selection.all_attempts)


def say_why_silent(layout: RunLayout) -> int:
    """No rank has a log: what the run is doing, and what else there is to read."""
    from orchestrator.logs.silence import other_logs
    from orchestrator.runs.observe import observe_one
    from orchestrator.runs.registry import name_of

    observed, troubles = observe_one(layout)
    state = observed.state
    yet = "" if state.state.ended else " yet"
    note(f"No rank of {layout.run_id} has a log{yet}. It is {state.words}")
    for trouble in troubles:
        note(trouble)
    for number, other in enumerate(other_logs(observed)):
        if number == 0 and state.state.ended:
            note(f"Last lines of {other.path}:")
            note("\n".join(f"  | {line}" for line in other.lines))
        else:
            note(f"See {other.path}")
    next_commands(f"ptx status {name_of(layout)}")
    return 0
