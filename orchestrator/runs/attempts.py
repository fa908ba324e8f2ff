"""The attempts of a run: each start, how it ended, and what was to follow. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from orchestrator.runs.events import Event
from orchestrator.runs.state import State
from orchestrator.runs.submissions import submissions

_OF_ATTEMPTS = frozenset({"job_started", "node_started", "node_ended", "attempt_ended"})
HANG = "hang"
"""A class of ends that is no state: a run that ended by one has failed."""


class Attempt(NamedTuple):
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
    begun: dict[int, float] = {}
    nodes_ended: dict[int, float] = {}
    judged: dict[int, Event] = {}
    for event in events:
        kind = event.type
        if kind not in _OF_ATTEMPTS:
            continue
        number = event.integer("attempt", -1)
        if number < 0:
            continue
        if kind == "node_ended":
            if number in begun:
                nodes_ended[number] = event.t
            continue
        begun.setdefault(number, event.t)
        if kind == "attempt_ended":
            judged[number] = event
    return tuple(
        _attempt(number, begun[number], nodes_ended.get(number), judged.get(number))
        for number in sorted(begun)
    )


def _attempt(number: int, begun: float, ended: float | None, judged: Event | None) -> Attempt:
    if judged is None:
        return Attempt(number, begun, ended)
    return Attempt(
        number,
        begun,
        ended=judged.t,
        end_class=judged.text("class") or None,
        message=judged.text("message"),
        retry=judged.fields.get("retry") is True,
        counted=judged.fields.get("counted") is True,
        where=judged.text("where") or None,
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
