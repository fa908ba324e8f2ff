"""Settling what a client left that died between its intent and the scheduler's answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.runs.array import element_id
from orchestrator.runs.events import ClientEvents, Event
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import Liveness, Process, alive, is_argument
from orchestrator.runs.submissions import submissions


class Finder(Protocol):
    def find(self, run_id: str, array: str = "") -> str | None: ...


def reconcile(
    layout: RunLayout,
    events: Sequence[Event],
    scheduler: Finder,
    *,
    liveness: Liveness = alive,
) -> Event | None:
    """Write `submitted` or `submit_failed` for a run whose client is dead; else None.

    A client on another host may still be at work, so its failure is never concluded, only a job
    that bears the run's tag counts. Raises SchedulerUnreachable where the scheduler must be asked.
    """
    made = submissions(events)
    if not made or made[-1].settled(events):
        return None
    newest = made[-1]
    client = Process.of(newest.intent.fields)
    living = liveness(client) if client is not None else None
    # An sbatch that the client has started outlives it, and may yet have its job accepted.
    array = newest.intent.text("array")
    if living or is_argument(_script_folder(layout, array)):
        return None
    job_id = scheduler.find(layout.run_id, array) if array else scheduler.find(layout.run_id)
    if job_id in known_jobs(events):
        job_id = None  # an earlier submission's
    if job_id is None and living is None:
        return None
    which = {"submission": newest.number} if newest.number else {}
    try:
        if job_id is not None:
            return ClientEvents(layout).append("submitted", job_id=job_id, **which)
        return ClientEvents(layout).append(
            "submit_failed",
            message="the submitting ptx died before the scheduler had the job",
            **which,
        )
    except OSError:
        return None  # somebody else's run: its owner's next command settles it


def _script_folder(layout: RunLayout, array: str) -> Path:
    """An array's script is in the bundle of its first element."""
    first = RunLayout(layout.root.parent / element_id(array, 0)) if array else layout
    return first.bundle


def known_jobs(events: Iterable[Event]) -> set[str]:
    """All that the run has had so far."""
    return {event.text("job_id") for event in events} - {""}
