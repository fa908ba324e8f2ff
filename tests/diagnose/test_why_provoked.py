"""`ptx why` on failures that were provoked for real, under all three launchers.

A dozen of them here, two at a time; all: benchmarks/soak/why_corpus.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.ptx import Ptx, exit_records
from support.why_cases import CASES, IN_TESTS
from support.why_provoked import Told, good_enough, submit, told

pytestmark = pytest.mark.slow

FRAME = re.compile(r"^(/.+):(\d+) in (.+)$")
CHOSEN = tuple(case for case in CASES if case.name in IN_TESTS)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Told]]:
    """Name of the case -> what was said of it."""
    folder = tmp_path_factory.mktemp("why")
    ptx = Ptx(folder / "runs", {"XDG_STATE_HOME": str(folder / "state")})

    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        jobs = {
            case.name: pool.submit(
                lambda case=case: told(case, submit(case, folder / case.name, ptx, stack), ptx)
            )
            for case in CHOSEN
        }
        yield {name: job.result() for name, job in jobs.items()}


@pytest.mark.parametrize("name", IN_TESTS)
def test_rank_and_class_of_a_real_failure_are_named(name: str, verdicts: dict[str, Told]) -> None:
    verdict = verdicts[name]
    assert verdict.rank_right, verdict
    assert verdict.state_right, verdict
    assert verdict.rule_right, verdict


def test_the_evidence_of_a_real_failure_is_a_line_of_its_log(verdicts: dict[str, Told]) -> None:
    for verdict in verdicts.values():
        rows = [row for row in verdict.verdict["evidence"] if row["path"].startswith("attempts/")]
        if verdict.case.name.startswith("setup"):
            assert rows[0]["path"].endswith("launcher.log"), verdict
        for row in rows:
            lines = (verdict.run / row["path"]).read_text(errors="replace").split("\n")
            frame = FRAME.sub(r'File "\1", line \2 in \3', row["text"])  # of a stack, in short
            assert frame[-40:] in lines[row["line"] - 1], verdict


def test_the_echo_of_the_late_root_did_come_first(verdicts: dict[str, Told]) -> None:
    """Else the case shows nothing."""
    records = {record["rank"]: record for record in exit_records(verdicts["late-root"].run)}
    assert records[0]["ended"] < records[1]["ended"]
    assert "gloo/transport" in records[0]["exception"]["message"]
    assert verdicts["late-root"].verdict["others"] == [{"what": "gloo-closed", "ranks": [0]}]


@pytest.mark.parametrize(
    ("wrong", "enough"),
    [
        ({"rule": "killed"}, True),  # one of twenty
        ({"rule": None}, True),
        ({"class": "hang"}, False),
        ({"first": {"rank": 0}}, False),
        ({"first": None}, False),
    ],
)
def test_the_benchmark_fails_below_its_goals(wrong: dict[str, object], enough: bool) -> None:
    case = next(case for case in CASES if case.name == "segfault")
    right = {"first": {"rank": 1}, "class": "failed", "rule": "segfault"}
    many = [Told(case, Path(), right)] * 19
    assert good_enough(many)
    assert good_enough([*many, Told(case, Path(), right | wrong)]) is enough


def test_wrong_causes_make_the_benchmark_fail() -> None:
    case = next(case for case in CASES if case.name == "segfault")
    wrong = {"first": {"rank": 1}, "class": "failed", "rule": "killed"}
    assert not good_enough([Told(case, Path(), wrong)])
    assert good_enough([Told(case, Path(), wrong | {"rule": None})])
