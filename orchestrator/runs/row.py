"""One run as a line of a table, and as the index keeps it."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.runs.state import State

_LIVE = frozenset(state.value for state in State if not state.ended)


class RunRow(NamedTuple):
    """Times in epoch seconds. A tuple of what JSON knows: there are ten thousand of them."""

    path: str
    run_id: str
    name: str
    state: str
    reason: str
    brief: str
    """The reason with what matters first: the rest of a long line is cut. Of a run that failed it
    names a rank only where it is a verdict: the first that was heard of may be an echo."""
    verdict: int
    """What `brief` was judged with where it is the verdict of `ptx why` (`cli/row_verdicts.py`),
    else 0."""
    created: float
    submitted: float | None
    started: float | None
    ended: float | None
    scheduler: str
    launcher: str
    job_id: str | None
    attempts: list[int]
    nodes: int
    procs_per_node: int
    world_size: int
    spec_path: str
    user: str
    final: bool
    """Known for good: no scheduler need be asked again."""
    unsettled: bool
    """The scheduler may have a job of it that the events do not name."""

    @property
    def live(self) -> bool:
        return self.state in _LIVE
