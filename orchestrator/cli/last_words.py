"""What a failed run said last: the first thing that somebody wants to see of it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import UserError
from orchestrator.logs.line import last_state
from orchestrator.logs.screen import plain
from orchestrator.logs.silence import other_logs
from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_exit
from orchestrator.runs.state import State

SHOWN_LINES = 10
SHOWN_WIDTH = 400
"""Characters of a line; `ptx logs` shows all of it."""


def reason(run: Observed) -> str:
    """Why a run is as it is; of one that failed, the verdict of `ptx why` in one sentence."""
    from orchestrator.diagnose.why import why

    state = run.state
    if not state.state.ended or state.state in (State.COMPLETED, State.CANCELLED):
        return state.reason
    try:
        verdict = why(run)
    except UserError:  # rules of one's own that cannot be read; `ptx why` says so
        return state.reason
    return verdict.sentence if verdict.kind == "failed" else state.reason


def last_words(run: Observed) -> str:
    """Of the rank that failed first; where none did, of the launcher or the scheduler. May be
    empty."""
    failure, attempt = run.state.failure, run.state.attempt
    if failure is not None and attempt is not None:
        record = read_exit(run.layout, attempt, failure.node, failure.rank)
        lines = record.last_lines if record else ()
        return _block(f"rank {failure.rank}, which failed first", lines)
    if run.state.state is State.LAUNCH_ERROR:
        others = other_logs(run)
        return _block(str(others[0].path), others[0].lines) if others else ""
    return ""


def _block(what: str, lines: Sequence[str]) -> str:
    shown = [f"  | {_cut(plain(last_state(line)))}" for line in lines[-SHOWN_LINES:]]
    return "\n".join([f"last lines of {what}:", *shown]) if shown else ""


def _cut(line: str) -> str:
    return line if len(line) <= SHOWN_WIDTH else f"{line[: SHOWN_WIDTH - 1]}…"
