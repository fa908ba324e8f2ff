"""Which rule explains how a rank, a launcher or a job ended. Pure.

A traceback's own exception says more than the lines around it, and the end of a log more than its
middle; at each of these the rules are asked in order and the first that fits counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.diagnose.rules import Example, Rule
from orchestrator.diagnose.tail import Tail, unprefixed

END_LINES = 100
"""Of output without a traceback this many lines count as its end."""
_SLOT = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*\{\w+\}[^\[\]]*)\]")


@dataclass(frozen=True)
class Ending:
    """How something ended and what it said."""

    place: str = "rank"
    signal: int | None = None
    exit_code: int | None = None
    ended: str = ""
    """`reason` of its node's end."""
    memory_full: bool = False
    """The ranks of its node held about all the host memory that they may use."""
    exception: str = ""
    """`Type: message` of the last traceback."""
    said: Sequence[str] = ()
    """Lines in order."""
    chain: int | None = None
    """Index in `said` where the last traceback, with what led to it, begins."""


@dataclass(frozen=True)
class Match:
    rule: Rule
    line: int | None = None
    """Index in `said` of the line that was found; None where only the exception was."""
    text: str = ""
    """That line."""
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def cause(self) -> str:
        """The clause, with what the text named. What stands in brackets is left out where the
        text did not name it."""
        told = _OPTIONAL.sub(lambda part: part[1] if self._names(part[1]) else "", self.rule.cause)
        told = _SLOT.sub(lambda slot: self.groups.get(slot[1], "?"), told)
        return " ".join(told.split())

    def _names(self, part: str) -> bool:
        return all(self.groups.get(slot[1]) for slot in _SLOT.finditer(part))

    @property
    def rank(self) -> int | None:
        """Whom the text blames, where it names a rank."""
        named = self.groups.get("rank", "")
        return int(named) if named.isdecimal() else None


def explain(rules: Iterable[Rule], ending: Ending) -> Match | None:
    """The first rule that fits at the most telling place."""
    fitting = [rule for rule in rules if _status_fits(rule, ending)]
    texts = [rule for rule in fitting if rule.text]
    match = _in_exception(texts, ending) or _in_lines(texts, ending)
    if match is None or match.rule.vague:
        exact = [rule for rule in texts if not rule.vague]
        anywhere = [rule for rule in exact if rule.anywhere]
        match = _in_lines(exact, ending) or _in_lines(anywhere, ending, everywhere=True) or match
    return match or next((Match(rule) for rule in fitting if not rule.text), None)


def ending_of(example: Example) -> Ending:
    """What a rule's example looks like to `explain`; a traceback is found in it as in a log."""
    from pathlib import Path

    lines = tuple(unprefixed(line) for line in example.text.split("\n")) if example.text else ()
    return Ending(
        place=example.place,
        signal=example.signal,
        exit_code=example.exit_code,
        ended=example.ended,
        memory_full=example.memory_full,
        said=lines,
        chain=Tail(Path(), lines).chain(),
    )


def _status_fits(rule: Rule, ending: Ending) -> bool:
    return (
        ending.place in rule.place
        and (not rule.signal or ending.signal in rule.signal)
        and (not rule.exit_code or ending.exit_code in rule.exit_code)
        and (not rule.ended or ending.ended in rule.ended)
        and (not rule.memory_full or ending.memory_full)
    )


def _in_exception(rules: Iterable[Rule], ending: Ending) -> Match | None:
    if not ending.exception:
        return None
    for rule, found in _search(rules, ending.exception):
        index = _last_line_with(ending.said, _line_around(ending.exception, found.start()))
        return _match(rule, found, index, ending.said[index] if index is not None else "")
    return None


def _in_lines(rules: Iterable[Rule], ending: Ending, *, everywhere: bool = False) -> Match | None:
    start = ending.chain if ending.chain is not None else max(0, len(ending.said) - END_LINES)
    start = 0 if everywhere else start
    text = "\n".join(ending.said[start:])
    for rule, found in _search(rules, text):
        index = start + text.count("\n", 0, found.start())
        return _match(rule, found, index, ending.said[index])
    return None


def _search(rules: Iterable[Rule], text: str) -> Iterator[tuple[Rule, re.Match[str]]]:
    if text:
        for rule in rules:
            for pattern in rule.patterns:
                if found := pattern.search(text):
                    yield rule, found
                    break


def _match(rule: Rule, found: re.Match[str], index: int | None, line: str) -> Match:
    groups = {name: value for name, value in found.groupdict().items() if value is not None}
    return Match(rule, index, line, groups)


def _line_around(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].split("\n", 1)[0]


def _last_line_with(lines: Sequence[str], part: str) -> int | None:
    for index in range(len(lines) - 1, -1, -1):
        if part and part in lines[index]:
            return index
    return None
