"""What a failed run said last: the first thing that somebody wants to see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.logs.line import last_state
from orchestrator.logs.screen import plain
from orchestrator.logs.silence import other_logs
from orchestrator.runs.attempts import HANG
from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_exit
from orchestrator.runs.state import State

if TYPE_CHECKING:  # rules and recorders are read only where something failed
    from orchestrator.diagnose.verdict import Verdict

SHOWN_LINES = 10
SHOWN_WIDTH = 400
"""Characters of a line; `ptx logs` shows all of it."""


@dataclass(frozen=True)
class Judged:
    """What a page says of a run's state, and whom it shows: one verdict, so that they agree."""

    sentence: str
    rank: int | None = None
    """The one to look at: who began it, or as the agents saw it. None where no rank failed."""
    node: int | None = None
    """Where that rank ran, if anybody knows."""
    failed: bool = False
    """That rank failed by itself: it was neither waited for nor told to end."""


def judged(run: Observed) -> Judged:
    """Of a run that failed, as `ptx why` has it; else as the state has it."""
    from orchestrator.diagnose.witness import TOLD

    state, failure = run.state, run.state.failure
    plain = Judged(state.reason)
    if failure is not None:
        plain = Judged(state.reason, failure.rank, failure.node, failed=True)
    verdict = _verdict(run)
    if verdict is None:
        return plain
    if verdict.first is None:
        return replace(plain, sentence=verdict.sentence)
    first = verdict.first
    code = first.exit_code if first.signal is None else -first.signal
    failed = verdict.state != HANG and code not in (None, 0, *TOLD)
    return Judged(verdict.sentence, first.rank, first.node, failed=failed)


def _verdict(run: Observed) -> Verdict | None:
    """None where nothing failed for good, or nobody can say why."""
    from orchestrator.diagnose.why import why

    state = run.state.state
    if not state.ended or state in (State.COMPLETED, State.CANCELLED):
        return None
    try:
        verdict = why(run)
    except UserError:  # rules of one's own that cannot be read; `ptx why` says so
        return None
    return verdict if verdict.kind == "failed" else None


def reason(run: Observed) -> str:
    """Why a run is as it is; of one that failed, the verdict of `ptx why` in one sentence."""
    return judged(run).sentence


def last_words(run: Observed, found: Judged) -> str:
    """Of the rank that began it; where no rank did, of the launcher or the scheduler. May be
    empty."""
    attempt = run.state.attempt
    if found.rank is not None and attempt is not None:
        if found.node is None:
            return ""
        record = read_exit(run.layout, attempt, found.node, found.rank)
        what = f"rank {found.rank}, which failed first" if found.failed else f"rank {found.rank}"
        return _block(what, record.last_lines if record else ())
    if run.state.state is State.LAUNCH_ERROR:
        others = other_logs(run)
        return _block(str(others[0].path), others[0].lines) if others else ""
    return ""


def _block(what: str, lines: Sequence[str]) -> str:
    shown = [f"  | {_cut(plain(last_state(line)))}" for line in lines[-SHOWN_LINES:]]
    return "\n".join([f"last lines of {what}:", *shown]) if shown else ""


def _cut(line: str) -> str:
    return line if len(line) <= SHOWN_WIDTH else f"{line[: SHOWN_WIDTH - 1]}…"
