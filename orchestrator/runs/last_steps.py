"""What the agents of an attempt knew of its steps at the end, beyond the reports. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from orchestrator.runs.events import Event
from orchestrator.runs.goodput import Report

_SAVED = (0, 143)
"""Codes of ranks that were done, or that stopped at a step on which all had agreed."""


class LastSteps(NamedTuple):
    """Of all nodes of one attempt."""

    newest: Report | None
    """The newest step that a node's agent knew of, in no time of its own."""
    orderly: bool
    """No rank was cut short: who stops as it was asked to has reported its last step."""
    idle: bool
    """No rank had told its agent of a step."""


NONE = LastSteps(None, orderly=False, idle=False)
"""Of an attempt of which no agent is on record."""


def last_steps(events: Sequence[Event]) -> dict[int, LastSteps]:
    """By number of the attempt."""
    started: dict[int, set[int]] = {}
    ended: dict[int, dict[int, Event]] = {}
    for event in events:
        attempt, node = event.integer("attempt", -1), event.integer("node", -1)
        if event.type == "node_started":
            started.setdefault(attempt, set()).add(node)
        elif event.type == "node_ended":
            ended.setdefault(attempt, {})[node] = event
    return {attempt: _together(nodes, ended.get(attempt, {})) for attempt, nodes in started.items()}


def _together(started: Collection[int], ended: Mapping[int, Event]) -> LastSteps:
    told = [word for word in map(_newest, ended.values()) if word is not None]
    whole = ended.keys() >= set(started)
    return LastSteps(
        max(told, key=lambda word: word.step, default=None),
        orderly=whole and all(map(_is_orderly, ended.values())),
        idle=whole and not any(event.fields.get("stepped") for event in ended.values()),
    )


def _newest(event: Event) -> Report | None:
    start, step = event.integer("start_step", -1), event.integer("step", -1)
    return Report(step, start, 0.0) if 0 <= start < step else None


def _is_orderly(event: Event) -> bool:
    ranks = event.fields.get("ranks")
    codes = ranks.values() if isinstance(ranks, dict) else ()
    as_asked = event.text("reason") in ("stopped", "completed")
    return as_asked and all(code in _SAVED for code in codes)
