"""The attempts of a run: each start, how it ended, and what was to follow. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from orchestrator.runs.events import Event
from orchestrator.runs.state import State
from orchestrator.runs.submissions import submissions

HANG = "hang"
"""A class of ends that is no state: a run that ended by one has failed."""


@dataclass(frozen=True)
class Attempt:
    number: int
    started: float
    """This and `ended` in epoch seconds."""
    ended: float | None = None
    end_class: str | None = None
    """A word of State, or `hang`; None while it is not known."""
    message: str = ""
    retry: bool = False
    """Another attempt is to follow."""
    counted: bool = False
    """Against restart.max."""
    where: str | None = None
    """allocation, requeue or new-job."""

    @property
    def state(self) -> State:
        """What its end makes of the run."""
        words = {state.value: state for state in State}
        return words.get(self.end_class or "", State.FAILED)


def history(events: Sequence[Event]) -> tuple[Attempt, ...]:
    """`events` in time order."""
    found: dict[int, Attempt] = {}
    for event in events:
        number = event.integer("attempt", -1)
        if event.type in ("job_started", "node_started") and number >= 0:
            found.setdefault(number, Attempt(number, event.t))
        elif event.type == "node_ended" and number in found:
            found[number] = replace(found[number], ended=event.t)
        elif event.type == "attempt_ended" and number >= 0:
            found[number] = _ended(found.get(number, Attempt(number, event.t)), event)
    return tuple(found[number] for number in sorted(found))


def _ended(attempt: Attempt, event: Event) -> Attempt:
    return replace(
        attempt,
        ended=event.t,
        end_class=event.text("class") or None,
        message=event.text("message"),
        retry=event.fields.get("retry") is True,
        counted=event.fields.get("counted") is True,
        where=event.text("where") or None,
    )


def resumed(events: Sequence[Event]) -> set[int]:
    """Numbers of the attempts that a person began with `ptx resume`."""
    begun = {attempt.number for attempt in history(events)}
    return {one.attempt for one in submissions(events) if one.number} & begun


def restarts(events: Sequence[Event]) -> dict[str, int]:
    """How often the run was started again without a person, by what had ended the attempt
    before."""
    by_hand, attempts = resumed(events), history(events)
    ends = [
        before.end_class or State.UNKNOWN.value
        for before, after in pairwise(attempts)
        if after.number not in by_hand
    ]
    return dict(Counter(ends))
