"""`ptx why` on cases that were written without sight of its rules: what it has reached it keeps.

The counts by name, and what is wrong: benchmarks/soak/why_blind.py.
"""

from __future__ import annotations

import pytest
from support.blind_answers import Answer, Answers, answers
from support.blind_cases import Case


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers(tmp_path_factory.mktemp("blind"))


def test_there_are_all_of_the_cases(found: Answers) -> None:
    assert (len(found.failures), len(found.healthy)) == (240, 36)


@pytest.mark.parametrize(("what", "wrong"), [("rank", 2), ("class", 3), ("cause", 10)])
def test_no_more_of_them_are_answered_wrongly_than_were(
    what: str, wrong: int, found: Answers
) -> None:
    answered = [answer.line(what) for answer in found.wrong(what)]
    assert len(answered) <= wrong, "\n".join(answered)


def test_the_causes_that_are_claimed_are_right(found: Answers) -> None:
    answered = [answer.line("cause") for answer in found.wrongly_claimed]
    assert len(answered) <= 1, "\n".join(answered)


def test_no_healthy_run_is_blamed(found: Answers) -> None:
    assert [answer.words() for answer in found.loud] == []


FAILED = Case("oom", {"expected": {"rank": 1, "class": "failed", "words": ["memory"]}})
HEALTHY = Case("good", {"expected": {"healthy": True}})
RIGHT = Answer(FAILED, {"first": {"rank": 1}, "class": "failed", "cause": "no memory"})


@pytest.mark.parametrize(
    ("wrong", "good_enough"),
    [
        ([], True),
        ([Answer(FAILED, {**RIGHT.said, "class": "hang"})], True),
        ([Answer(FAILED, {**RIGHT.said, "class": "hang"})] * 2, False),
        ([Answer(FAILED, {**RIGHT.said, "first": None})] * 2, False),
        ([Answer(HEALTHY, {"first": None, "cause": "no memory"})], False),
    ],
    ids=["all-right", "at-the-goal", "class", "rank", "healthy"],
)
def test_the_benchmark_fails_below_its_goals(wrong: list[Answer], good_enough: bool) -> None:
    right = [RIGHT] * 19 + [Answer(HEALTHY, {"first": None, "cause": None})]
    assert Answers([*right, *wrong]).good_enough is good_enough
