"""A rank that raised an exception and was told to end before it had ended by it: a slow `finally`
or atexit, and the others, who noticed, were quicker to go."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from orchestrator.diagnose.aftermath import moment
from orchestrator.diagnose.rules import Rule
from orchestrator.diagnose.witness import Witness

MOST_LOGS = 32
"""Logs that are looked into before the search ends."""
_NOTICED = 1800.0
"""Seconds, beside the timeout they name, in which the others notice that a rank has raised: what
it logged long before that it survived, though it printed no progress."""
_BY_ITS_END = re.compile(
    r"sig_?(?:nal|term|int|num|handler)|term_?handler|terminat|interrupt|shut_?down|SystemExit"
    r"|cancel+ed|preempt|exited unexpectedly|Connection|Broken|Timeout|timed out",
    re.IGNORECASE,
)
"""In a traceback: what a handler of SIGTERM raised, or what came of the end of another process."""


def first_to_raise(
    found: Sequence[Witness], heard: Witness, look: Callable[[Witness], Witness]
) -> Witness | None:
    """Of ranks that were told to end the first that had raised by then, where the others' words
    are echoes; `look` reads the end of a log."""
    told = [one for one in found if one.told_to_end]
    return _first(
        (when, ending)
        for when, ending in _raised(told, heard, look)
        if when <= _told(ending, found, heard)
    )


def first_to_say(
    found: Sequence[Witness],
    heard: Witness,
    rules: Iterable[Rule],
    look: Callable[[Witness], Witness],
) -> Witness | None:
    """Of ranks that closed their connections as they went and printed what they had raised only
    once others had ended. What SIGTERM ends has no handler of it that could have raised this."""
    echoes = [rule for rule in rules if rule.echo]
    told = [one for one in found if one.code == -signal.SIGTERM]
    return _first(
        (when, ending)
        for when, ending in _raised(told, heard, look)
        if ending.tail is not None
        and not _BY_ITS_END.search("\n".join(ending.tail.traceback()))
        and not _speaks_of_others("\n".join(ending.tail.lines), echoes)
    )


def _raised(
    told: Sequence[Witness], heard: Witness, look: Callable[[Witness], Witness]
) -> Iterable[tuple[float, Witness]]:
    """Those that ended by an exception which is no echo, and when they had printed it."""
    for one in [one for one in told if _has_exception(one)][:MOST_LOGS]:
        ending = look(replace(one, ending=True))
        when = _when(ending)
        if when is None or not ending.exception or is_echo(ending):
            continue
        if _earliest(heard) <= when:
            yield when, ending


def _first(seen: Iterable[tuple[float, Witness]]) -> Witness | None:
    first = min(seen, key=lambda row: (row[0], row[1].rank), default=None)
    return first and first[1]


def _speaks_of_others(text: str, echoes: Sequence[Rule]) -> bool:
    """Whatever it raised then may have come of that."""
    return any(pattern.search(text) for rule in echoes for pattern in rule.patterns)


def _has_exception(witness: Witness) -> bool:
    return witness.record is not None and bool(witness.record.exception_type)


def is_echo(witness: Witness) -> bool:
    """By what it said: that a signal ended it says nothing of what it had raised."""
    rule = witness.match.rule if witness.match else None
    return rule is not None and rule.echo and bool(rule.text)


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
