"""The submissions of a run: `ptx submit` made the first, each `ptx resume` another. Pure.

The newest one that came to something says how the run stands; what earlier ones did is history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.runs.events import Event
from orchestrator.runs.records import RunRecord

_OF_A_CLIENT = frozenset({"intent", "submitted", "submit_failed"})
_NUMBERED = _OF_A_CLIENT | {"cancel", "cancel_failed"}
"""These may name their submission: the clocks of those who type need not agree."""
_BEGINS = frozenset({"job_started", "node_started"})


@dataclass(frozen=True)
class Submission:
    number: int
    """0 for `ptx submit`."""
    attempt: int
    """The first attempt that it may begin."""
    intent: Event

    def owns(self, event: Event) -> bool:
        """Whether the event tells of this submission, or of one after it."""
        if event.type in _NUMBERED and "submission" in event.fields:
            return event.integer("submission") == self.number
        if not self.number:
            return True
        attempt = event.fields.get("attempt")
        if isinstance(attempt, int) and event.type not in _OF_A_CLIENT:
            return attempt >= self.attempt
        return event.t >= self.intent.t

    def settled(self, events: Sequence[Event]) -> bool:
        """Whether it is known what became of it."""
        return self._has(events, {"submitted", "submit_failed", "job_started"})

    def withdrawn(self, events: Sequence[Event]) -> bool:
        """The scheduler never had it."""
        came_to_be = {"submitted", "supervisor_started", *_BEGINS}
        return self._has(events, {"submit_failed"}) and not self._has(events, came_to_be)

    def _has(self, events: Sequence[Event], kinds: set[str]) -> bool:
        return any(event.type in kinds and self.owns(event) for event in events)


def submissions(events: Sequence[Event]) -> list[Submission]:
    """In the order in which they were made; [] where no intent can be read."""
    found = [
        Submission(event.integer("submission"), event.integer("attempt"), event)
        for event in events
        if event.type == "intent"
    ]
    return sorted(found, key=lambda one: one.number)


def standing(events: Sequence[Event]) -> Submission | None:
    """The newest that was not withdrawn; the first in any case."""
    found = submissions(events)
    for one in reversed(found):
        if not one.number or not one.withdrawn(events):
            return one
    return found[0] if found else None


def current(events: Sequence[Event]) -> Sequence[Event]:
    """The events that say how the run stands, in the order given; `events` themselves where those
    are all."""
    if not _resumed(events):
        return events
    one = standing(events)
    if one is None:
        return events
    later = {other.number for other in submissions(events) if other.number > one.number}
    return [
        event
        for event in events
        if one.owns(event)
        and not (event.type in _OF_A_CLIENT and event.integer("submission") in later)
    ]


def _resumed(events: Sequence[Event]) -> bool:
    """Whether there can be more than one: of ten thousand runs nearly none."""
    for _, kind, fields in events:  # noqa: SIM110 - a generator takes twice the time
        if "submission" in fields and kind in _OF_A_CLIENT:
            return True
    return False


def record_now(record: RunRecord, events: Sequence[Event]) -> RunRecord:
    """run.json with what the standing submission changed: where it runs, and on how many ranks."""
    one = standing(events) if _resumed(events) else None
    if one is None or not one.number:
        return record
    changed: dict[str, Any] = {}
    for name in ("scheduler", "launcher"):
        changed[name] = one.intent.text(name) or getattr(record, name)
    for name in ("nodes", "procs_per_node", "world_size"):
        changed[name] = max(1, one.intent.integer(name, getattr(record, name)))
    return record._replace(**changed)
