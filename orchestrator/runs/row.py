"""One run as a line of a table, and as the index keeps it."""

from __future__ import annotations

import os
from typing import NamedTuple

from orchestrator.runs.observe import Observed
from orchestrator.runs.state import RunState, State
from orchestrator.runs.submissions import submissions

_LIVE = frozenset(state.value for state in State if not state.ended)


class RunRow(NamedTuple):
    """Times in epoch seconds. A tuple of what JSON knows: there are ten thousand of them."""

    path: str
    run_id: str
    name: str
    state: str
    reason: str
    brief: str
    """The reason with what matters first: the rest of a long line is cut."""
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


def row_of(run: Observed) -> RunRow:
    record, state = run.record, run.state
    made = [] if state.final else submissions(run.events)
    return RunRow(
        path=os.fspath(run.layout.root),
        run_id=record.run_id,
        name=record.name,
        state=state.state.value,
        reason=state.reason,
        brief=_brief(state),
        created=record.created,
        submitted=state.submitted,
        started=state.started,
        ended=state.ended,
        scheduler=record.scheduler,
        launcher=record.launcher,
        job_id=state.job_id,
        attempts=list(state.attempts),
        nodes=record.nodes,
        procs_per_node=record.procs_per_node,
        world_size=record.world_size,
        spec_path=record.spec_path,
        user=record.user,
        final=state.final,
        unsettled=bool(made) and not made[-1].settled(run.events),
    )


def _brief(state: RunState) -> str:
    failure = state.failure
    if failure is None or not failure.message or not state.reason.startswith("Rank "):
        return state.reason
    return f"Rank {failure.rank}: {failure.message}"
