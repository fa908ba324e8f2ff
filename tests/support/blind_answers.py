"""What `ptx why` answers to the blind cases, and how many of the answers are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from support.blind_cases import Case, build, cases, words_in

from orchestrator.cli.why_page import why_fields
from orchestrator.diagnose.rules import all_rules
from orchestrator.diagnose.why import why
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import observe_one

ASKED = ("rank", "class", "cause")
GOAL = 0.95
"""Of ranks, and of classes, that must be right."""


class Answer(NamedTuple):
    case: Case
    said: Mapping[str, Any]
    """As `ptx why --json` prints it."""

    @property
    def rank(self) -> object:
        first = self.said.get("first")
        return "none" if not isinstance(first, Mapping) else first.get("rank", "none")

    @property
    def text(self) -> str:
        return f"{self.said.get('cause') or ''}\n{self.said.get('next') or ''}"

    @property
    def claims(self) -> bool:
        """It names a cause, and does not leave it at the exception."""
        return self.said.get("cause") is not None

    @property
    def silent(self) -> bool:
        return not self.claims and self.rank == "none"

    def right(self, what: str) -> bool:
        expected = self.case.expected
        if what == "cause":
            return words_in(expected["words"], self.text)
        got = self.rank if what == "rank" else self.said.get("class")
        return got in _listed(expected[what])

    def line(self, what: str) -> str:
        expected = self.case.expected
        if what == "cause":
            return f"{self.case.name}: {expected['kind']}\n      said: {self.words()}"
        got = self.rank if what == "rank" else self.said.get("class")
        wanted = " or ".join(map(str, _listed(expected[what])))
        return f"{self.case.name}: {got}, not {wanted} ({self.words()})"

    def words(self) -> str:
        said = f"[{self.said.get('rule')}] {self.said.get('cause')} -> {self.said.get('next')}"
        return " ".join(said.split())[:300]


@dataclass(frozen=True)
class Answers:
    every: Sequence[Answer]

    @cached_property
    def failures(self) -> list[Answer]:
        return [answer for answer in self.every if not answer.case.healthy]

    @cached_property
    def healthy(self) -> list[Answer]:
        return [answer for answer in self.every if answer.case.healthy]

    @cached_property
    def loud(self) -> list[Answer]:
        """Healthy runs in which it found somebody to blame."""
        return [answer for answer in self.healthy if not answer.silent]

    @cached_property
    def claimed(self) -> list[Answer]:
        return [answer for answer in self.failures if answer.claims]

    @property
    def wrongly_claimed(self) -> list[Answer]:
        return [answer for answer in self.claimed if not answer.right("cause")]

    def wrong(self, what: str) -> list[Answer]:
        return [answer for answer in self.failures if not answer.right(what)]

    def right(self, what: str) -> int:
        return len(self.failures) - len(self.wrong(what))

    @property
    def good_enough(self) -> bool:
        """Whether the goals are reached."""
        least = GOAL * len(self.failures)
        return min(self.right("rank"), self.right("class")) >= least and not self.loud


def answers(folder: Path) -> Answers:
    """To all of them, whose run folders are made below `folder`."""
    return Answers([_ask(case, folder) for case in cases()])


def _ask(case: Case, folder: Path) -> Answer:
    run = observe_one(RunLayout(build(case, folder)), ask=False)[0]
    return Answer(case, why_fields(run, why(run, all_rules())))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
