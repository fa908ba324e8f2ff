"""From exit records to the reason a node ended and the rank that failed first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.ranks import describe, first_failure, outcome, read_records


def record(rank: int, code: int = 0, ended: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "rank": rank,
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "ended": ended,
        "exception": None,
        "last_lines": [],
        "orphaned_by": None,
        **more,
    }


def table(*records: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {one["rank"]: one for one in records}


@pytest.mark.parametrize(
    ("records", "terminated", "launched", "reason"),
    [
        ([record(0), record(1)], False, True, "completed"),
        ([record(0), record(1)], True, True, "terminated"),
        ([], True, False, "terminated"),
        ([], False, False, "setup-failed"),
        ([], False, True, "launch-failed"),
        ([record(0)], False, True, "launch-failed"),
        ([record(0), record(1, 1)], False, True, "rank-failed"),
        ([record(1, 1)], False, True, "rank-failed"),
        ([record(0, -9), record(1, -15)], False, True, "rank-failed"),
        ([record(1, -15)], False, True, "launch-failed"),
        ([record(0, -15), record(1, -15)], False, True, "rank-failed"),
        (
            [record(0, -15, orphaned_by="launcher"), record(1, 1, orphaned_by="launcher")],
            False,
            True,
            "launch-failed",
        ),
        ([record(0, 2), record(1, -15, orphaned_by="launcher")], False, True, "rank-failed"),
    ],
)
def test_the_reason_follows_from_the_records(
    records: list[dict[str, Any]], terminated: bool, launched: bool, reason: str
) -> None:
    got = outcome(table(*records), 2, terminated=terminated, launched=launched)
    assert got == reason


def test_the_earliest_failure_is_the_first() -> None:
    found = first_failure(table(record(0, 1, 5.0), record(1, 1, 4.0), record(2, 0, 3.0)), None)
    assert found is not None
    assert (found["rank"], found["code"], found["t"]) == (1, 1, 4.0)


def test_a_rank_told_to_end_is_not_the_cause_though_it_ended_before_the_other() -> None:
    found = first_failure(table(record(0, -15, 4.0), record(1, 1, 5.0), record(2, 143, 3.0)), None)
    assert found is not None
    assert found["rank"] == 1


def test_a_rank_ended_by_sigterm_is_named_when_no_other_failed() -> None:
    found = first_failure(table(record(0, -15, 4.0), record(1, -15, 3.0)), None)
    assert found is not None
    assert (found["rank"], found["signal"]) == (1, 15)


def test_what_the_agent_ended_is_no_failure() -> None:
    records = table(record(0, -15, 11.0), record(1, -9, 21.0))
    assert first_failure(records, ended_at=10.0) is None
    assert first_failure({}, None) is None


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (record(0, 1, exception={"type": "OSError", "message": "disk"}), "OSError: disk"),
        (record(0, 1, exception={"type": "AssertionError", "message": ""}), "AssertionError"),
        (record(0, -11), "ended by SIGSEGV"),
        (record(0, -64), "ended by SIGRTMAX"),
        (record(0, 2, last_lines=["usage: x", "bad flag", ""]), "bad flag"),
        (record(0, 2), "exit code 2"),
        (record(0, 2, last_lines=["\r 1/9\r 2/9 [00:01, 2it/s]\r"]), " 2/9 [00:01, 2it/s]"),
        (record(0, 2, last_lines=["\r 9/9 [00:01, 2it/s]\r        \r"]), " 9/9 [00:01, 2it/s]"),
        (record(0, 2, last_lines=["x" * 40000]), "x" * 499 + "…"),
    ],
)
def test_a_failure_is_described_in_a_sentence(one: dict[str, Any], sentence: str) -> None:
    assert describe(one) == sentence


IGNORED = [
    "Exception ignored in: <function Client.__del__ at 0x7f2e>",
    "Traceback (most recent call last):",
    '  File "/x/client.py", line 3, in __del__',
    "ImportError: sys.meta_path is None, Python is likely shutting down",
]


@pytest.mark.parametrize("ignored", [IGNORED, IGNORED[::3]], ids=["frames", "no frames"])
def test_what_a_destructor_raised_is_not_why_a_rank_ended(ignored: list[str]) -> None:
    """It comes last, when Python leaves."""
    said = ["giving up: object store: 503", *ignored, *ignored]
    found = first_failure(table(record(0, 1, last_lines=said)), None)
    assert found is not None
    assert (found["message"], found["exception"]) == ("giving up: object store: 503", None)
    raised = record(0, 1, last_lines=said, exception={"type": "ImportError", "message": "x"})
    found = first_failure(table(raised), None)
    assert found is not None
    assert (found["message"], found["exception"]) == ("ImportError: x", "ImportError")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"rank": "x"}', b"\xff\0", b'{"rank": 0}'])
def test_a_broken_record_counts_as_missing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "rank-00000.exit.json").write_bytes(data)
    (tmp_path / "rank-00001.exit.json").write_bytes(b'{"rank": 1, "ended": 2.5}')
    assert list(read_records(tmp_path)) == [1]
