"""What the page of `ptx why` says of where a failure began, and of whether the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.made_runs import MadeRun
from support.ptx import Ptx


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})


def failed(run: MadeRun, attempt: int = 0, *, t: float = 20, device: str | None = None) -> MadeRun:
    """Rank 1 of one attempt raised, on that device."""
    run.started(attempt=attempt, t=t)
    record = {"v": 1, "exit_code": 1, "ended": run.created + t, "device": device}
    record |= {"exception": {"type": "ValueError", "message": f"try {attempt}"}, "last_lines": []}
    run.layout.exit_record(attempt, 0, 1).write_text(json.dumps(record))
    return run.ended([0, 1], attempt=attempt, t=t + 1, message=f"ValueError: try {attempt}")


def rows(page: str) -> dict[str, str]:
    """By label; what has none belongs to the one before."""
    told: dict[str, str] = {}
    label = ""
    for line in page.splitlines():
        label = line[:10].strip() or label
        told[label] = f"{told.get(label, '')} {line[10:].strip()}".strip()
    return told


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("3", ", GPU 3"),
        ("GPU-8f2e6c1a-77aa", ", GPU-8f2e6c1a-77aa"),
        ("MIG-0b1d", ", MIG-0b1d"),
        (None, ""),
    ],
)
def test_attempt_node_and_gpu_of_the_first_to_fail_are_told_as_far_as_known(
    ptx: Ptx, device: str | None, told: str
) -> None:
    run = MadeRun(ptx.runs, "r-aaaaaa").submitted()
    failed(run).over(where="allocation", t=22)
    failed(run, 1, t=30, device=device).over(attempt=1, t=32)
    page = rows(ptx.ok("why", "r"))
    assert page["where"] == f"attempt 1, node 0 (n0){told}"
    assert page["run"] == "r-aaaaaa  failed"
    earlier = rows(ptx.ok("why", "r", "--attempt", "0"))
    assert earlier["where"] == "attempt 0 (the newest is 1), node 0 (n0)"


def test_a_failure_of_no_rank_is_told_with_its_node(ptx: Ptx) -> None:
    run = MadeRun(ptx.runs, "r-aaaaaa", nodes=2).submitted().started(0).started(1)
    run.event(5, "node_ended", attempt=0, node=1, rc=1, reason="check-failed", ranks={})
    run.ended([-15, -15], node=0, t=6).over("launch-error", t=7)
    assert rows(ptx.ok("why", "r"))["where"] == "attempt 0, node 1 (n1)"
    MadeRun(ptx.runs, "s-aaaaaa").event(1, "submit_failed", message="no such partition")
    assert "where" not in rows(ptx.ok("why", "s"))
    MadeRun(ptx.runs, "t-aaaaaa").completed()
    assert "where" not in rows(ptx.ok("why", "t"))


def test_of_a_run_that_is_started_again_the_page_says_so_beside_the_verdict(ptx: Ptx) -> None:
    run = MadeRun(ptx.runs, "r-aaaaaa").supervised()
    failed(run, device="0").over(where="allocation", t=22, message="ValueError: try 0")
    page = rows(ptx.ok("why", "r"))
    assert page["run"] == "r-aaaaaa  running Restarting."
    assert page["why"] == "Rank 1 on node 0 (n0) exited with 1: ValueError: try 0."
    assert page["where"] == "attempt 0, node 0 (n0), GPU 0"
    run.started(attempt=1, t=30)
    assert rows(ptx.ok("why", "r"))["run"] == "r-aaaaaa  running"
    assert rows(ptx.ok("why", "r", "--attempt", "0"))["run"] == "r-aaaaaa  running"
