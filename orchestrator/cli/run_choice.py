"""Which of many runs a table shows, and what it says of the others. Pure."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.runs.row import RunRow
from orchestrator.runs.state import State

LIVE, ENDED = "live", "ended"
"""Words for several states at once."""
NEWEST_ENDED = 10
"""At the least, however many are live: what failed a minute ago is what one looks for."""
_ORDER = [state.value for state in State]
SORTS: dict[str, Callable[[RunRow], tuple[float, str]]] = {
    "age": lambda row: (-row.created, row.run_id),
    "name": lambda row: (0, row.run_id),
    "state": lambda row: (_ORDER.index(row.state), row.run_id),
    "size": lambda row: (-row.world_size, row.run_id),
    "started": lambda row: (-(row.started or 0.0), row.run_id),
    "ended": lambda row: (-(row.ended or 0.0), row.run_id),
}
"""Newest and largest first."""


@dataclass(frozen=True)
class Choice:
    states: frozenset[str] = frozenset()
    """Empty for all."""
    name: str | None = None
    spec: str | None = None
    since: float | None = None
    """Epoch seconds: made since then."""
    sort: str = "age"
    limit: int | None = None
    everything: bool = False

    def takes(self, row: RunRow) -> bool:
        return (
            (not self.states or row.state in self.states)
            and (self.name is None or _fits(self.name, row.run_id) or _fits(self.name, row.name))
            and (self.spec is None or _fits(self.spec, row.spec_path))
            and (self.since is None or row.created >= self.since)
        )

    def of(self, rows: Sequence[RunRow]) -> list[RunRow]:
        return sorted((row for row in rows if self.takes(row)), key=SORTS[self.sort])


def parse_states(texts: Sequence[str]) -> frozenset[str]:
    """From `failed`, `failed,cancelled`, `live`, `ended`. Raises UserError."""
    groups = {
        LIVE: {state.value for state in State if not state.ended},
        ENDED: {state.value for state in State if state.ended},
    }
    chosen: set[str] = set()
    for word in (part.strip() for text in texts for part in text.split(",")):
        if word not in groups and word not in _ORDER:
            raise UserError(
                f"--state {word!r} is no state of a run.",
                hint=f"There are {', '.join(_ORDER)}; {LIVE} and {ENDED} are several at once.",
            )
        chosen |= groups.get(word, {word})
    return frozenset(chosen)


def cut(rows: Sequence[RunRow], limit: int) -> list[RunRow]:
    """At most `limit` of them, in their order: the live ones, and of the ended the first few at
    the least."""
    if len(rows) <= limit:
        return list(rows)
    live: list[RunRow] = []
    ended: list[RunRow] = []
    for row in rows:
        (live if row.live else ended).append(row)
    kept_ended = min(len(ended), max(limit - len(live), min(NEWEST_ENDED, limit // 2)))
    shown = {row.path for row in (*ended[:kept_ended], *live[: limit - kept_ended])}
    return [row for row in rows if row.path in shown]


def count_words(rows: Sequence[RunRow]) -> str:
    """`10,000 runs: 1,565 running, 435 pending, 8,000 completed`."""
    counts = Counter(row.state for row in rows)
    parts = [f"{counts[state]:,} {state}" for state in _ORDER if counts[state]]
    runs = "1 run" if len(rows) == 1 else f"{len(rows):,} runs"
    return f"{runs}: {', '.join(parts)}" if parts else runs


def _fits(pattern: str, text: str) -> bool:
    """With * ? [ as a shell has them, else as a part of the text."""
    if any(sign in pattern for sign in "*?["):
        return fnmatch.fnmatchcase(text, pattern)
    return pattern in text
