"""The verdicts of `ptx why` beside the runs of a table that failed for good."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.diagnose.own_files import own_files
from orchestrator.errors import UserError
from orchestrator.runs.index import Index
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.row import RunRow
from orchestrator.runs.state import State

if TYPE_CHECKING:  # most looks find all verdicts in the index
    from orchestrator.diagnose.rules import Rule

MOST_RUNS = 30
"""That are judged at one look: as many as a terminal is shown. A verdict reads a run's records and
the ends of its logs; it is found once, and kept in the index."""
MOST_RANKS = 2048
"""Of them together, though one run is judged however large it is."""
_NOT_JUDGED = frozenset({State.COMPLETED.value, State.CANCELLED.value})


def with_verdicts(rows: Sequence[RunRow], index: Index) -> list[RunRow]:
    """The rows, those that failed with their verdicts as far as these are known or can be found
    now, in the order of the rows. What was found is for the index to keep."""
    mark = _mark()
    chosen = _chosen([row for row in rows if _is_to_be_judged(row, mark)])
    if not chosen:
        return list(rows)
    found = _judged(chosen, mark)
    for row in found.values():
        index.amend(row)
    return [found.get(row.path, row) for row in rows]


def _is_to_be_judged(row: RunRow, mark: int) -> bool:
    ended_badly = row.final and not row.live and row.state not in _NOT_JUDGED
    return ended_badly and row.verdict != mark


def _chosen(rows: Sequence[RunRow]) -> list[RunRow]:
    """As many as one look has time for."""
    chosen: list[RunRow] = []
    ranks = 0
    for row in rows[:MOST_RUNS]:
        ranks += row.world_size
        if chosen and ranks > MOST_RANKS:
            break
        chosen.append(row)
    return chosen


def _mark() -> int:
    """Another one where a verdict may come out another way: another ptx, or rules of one's own."""
    marks: list[object] = [__version__]
    for path in own_files():
        try:
            seen = path.stat()
        except OSError:  # removed a moment ago
            continue
        marks.append((str(path), seen.st_size, seen.st_mtime_ns))
    return zlib.crc32(repr(marks).encode("utf-8", "surrogateescape")) or 1


def _judged(rows: Sequence[RunRow], mark: int) -> dict[str, RunRow]:
    """By path, those of which anybody knows why."""
    from orchestrator.diagnose.rules import all_rules

    try:
        rules = all_rules()
    except UserError:  # rules of one's own that cannot be read; `ptx why` says so
        return {}
    told = ((row, _verdict(row, rules)) for row in rows)
    return {row.path: row._replace(brief=words, verdict=mark) for row, words in told if words}


def _verdict(row: RunRow, rules: Sequence[Rule]) -> str:
    """Empty where the run has gone on or is gone, or nobody can say why."""
    from orchestrator.diagnose.brief import brief
    from orchestrator.diagnose.why import why
    from orchestrator.runs.observe import observe_one

    try:
        run, _ = observe_one(RunLayout(row.path), ask=False)
        if not run.state.final or run.state.state.value != row.state:
            return ""
        verdict = why(run, rules)
    except (UserError, OSError):  # deleted while we looked
        return ""
    return brief(verdict) if verdict.kind == "failed" else ""
