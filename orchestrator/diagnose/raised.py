"""A rank that raised an exception and was told to end before it had ended by it: a slow `finally`
or atexit, and the others, who noticed, were quicker to go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.diagnose.aftermath import moment
from orchestrator.diagnose.witness import Witness

MOST_LOGS = 32
"""Logs that are looked into before the search ends."""
_NOTICED = 1800.0
"""Seconds, beside the timeout they name, in which the others notice that a rank has raised: what
it logged long before that it survived, though it printed no progress."""


def first_to_raise(
    found: Sequence[Witness], heard: Witness, look: Callable[[Witness], Witness]
) -> Witness | None:
    """Of ranks that were told to end the first that had raised by then, where the others' words
    are echoes; `look` reads the end of a log."""
    seen = []
    for one in [one for one in found if one.told_to_end and _has_exception(one)][:MOST_LOGS]:
        ending = look(replace(one, ending=True))
        when = _when(ending)
        if when is None or not ending.exception or _is_echo(ending):
            continue
        if _earliest(heard) <= when <= _told(one, found, heard):
            seen.append((when, ending.rank, ending))
    return min(seen, key=lambda row: row[:2])[2] if seen else None


def _has_exception(witness: Witness) -> bool:
    return witness.record is not None and bool(witness.record.exception_type)


def _is_echo(witness: Witness) -> bool:
    return witness.match is not None and witness.match.rule.echo


def _when(witness: Witness) -> float | None:
    """When it printed the exception, by its node's clock."""
    index = witness.tail.last_exception() if witness.tail else None
    return None if witness.tail is None or index is None else moment(witness.tail, index)


def _told(witness: Witness, found: Sequence[Witness], heard: Witness) -> float:
    """Nobody told it to end before another rank had ended; clocks of nodes may differ."""
    ends = [one.ended for one in found if one.node == witness.node and not one.told_to_end]
    return min(ends, default=heard.ended)


def _earliest(heard: Witness) -> float:
    named = heard.match.groups.get("ms", "") if heard.match else ""
    return heard.ended - _NOTICED - (int(named) / 1000 if named.isdecimal() else 0.0)
