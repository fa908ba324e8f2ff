"""How a supervisor numbers and remembers attempts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.agent.attempts import (
    begin_attempt,
    completed_before,
    past_of,
    read_nodes,
    unjudged,
)


def over(attempt: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "attempt_ended",
        "attempt": attempt,
        "retry": True,
        "counted": True,
        "nodes_failed": [],
        "early": None,
        **more,
    }


def test_the_number_is_one_more_than_the_largest_folder(tmp_path: Path) -> None:
    assert begin_attempt(tmp_path, shared=False) == 0
    (tmp_path / "attempts/007").mkdir()
    (tmp_path / "attempts/notes").mkdir()
    assert begin_attempt(tmp_path, shared=False) == 8
    assert (tmp_path / "attempts/008").stat().st_mode & 0o777 == 0o700
    assert begin_attempt(tmp_path, shared=True) == 9
    assert (tmp_path / "attempts/009").stat().st_mode & 0o7777 == 0o2770


def test_what_ended_for_good_closes_the_account_and_hosts_are_remembered() -> None:
    first = [over(0, nodes_failed=["n1"], early="x"), over(1, counted=False)]
    assert past_of(first) == (1, None, {"n1": 1}, 0, {"n1"})
    assert past_of(first[:1]).early == "x"
    final = [*first, over(2, retry=False, counted=False, nodes_failed=["n1"])]
    assert past_of(final) == (0, None, {"n1": 2}, 0, {"n1"})


def test_a_hosts_failures_are_forgotten_after_a_day_and_that_it_was_blamed_is_not() -> None:
    hour = 3600.0
    events = [
        over(0, t=0.0, nodes_failed=["n1", "n2"]),
        over(1, t=20 * hour, nodes_failed=["n3"]),
        over(2, t=23 * hour, nodes_failed=["n2"]),
    ]
    assert list(past_of(events).failures.items()) == [("n1", 1), ("n3", 1), ("n2", 2)]
    later = past_of([*events, over(3, t=25 * hour)])
    assert list(later.failures.items()) == [("n3", 1), ("n2", 1)]
    assert later.blamed == {"n1", "n2", "n3"}


def test_an_attempt_whose_supervisor_died_waits_for_its_judgement() -> None:
    begun = {"type": "job_started", "attempt": 1, "nodes": ["n0"]}
    assert unjudged([over(0), begun]) == begun
    assert unjudged([begun, over(1)]) is None


def test_what_an_earlier_start_of_the_job_completed_is_over_for_this_job_alone() -> None:
    begun = {"type": "job_started", "job_id": "7", "restarts": 0, "attempt": 1, "nodes": ["n0"]}
    final = over(1, retry=False) | {"class": "completed"}
    assert completed_before([over(0), begun, final], "7") == final
    assert completed_before([begun, over(1)], "7") is None, "another attempt was to follow"
    failed = over(1, retry=False) | {"class": "failed"}
    assert completed_before([begun, failed], "7") is None, "SLURM may have lost a node since"
    assert completed_before([begun, final], "8") is None, "a person submitted the script again"
    assert completed_before([begun, final], "7", since=2) is None, "the run was resumed"
    assert completed_before([begun, final, begun | {"attempt": 2}], "7") is None


def test_a_torn_line_and_a_foreign_file_are_passed_over(tmp_path: Path) -> None:
    events = tmp_path / "events"
    events.mkdir()
    ended = {"v": 1, "type": "node_ended", "node": 0, "reason": "stopped"}
    warned = {"v": 1, "type": "signal", "name": "SIGUSR2"}
    lines = [json.dumps(ended), json.dumps(warned), '{"v":1,"type":"node_en']
    (events / "a003-node-0000.jsonl").write_text("\n".join(lines))
    (events / "a002-node-0001.jsonl").write_text(json.dumps({**ended, "node": 1}) + "\n")
    nodes = read_nodes(tmp_path, 3)
    assert (nodes.ended, nodes.started, nodes.warned) == ({0: ended}, {}, True)


def test_the_notice_of_a_hang_is_read_with_what_the_nodes_left(tmp_path: Path) -> None:
    attempt = tmp_path / "attempts/003"
    attempt.mkdir(parents=True)
    assert read_nodes(tmp_path, 3).hung is None
    (attempt / "hang.json").write_text('{"v":1,"node":1,"t":100.5,"at":106.5}')
    assert read_nodes(tmp_path, 3).hung == 100.5


def test_node_failures_in_a_row_are_counted_until_something_else_happens() -> None:
    lost = [over(number, counted=False, **{"class": "node-failure"}) for number in range(3)]
    assert past_of(lost).lost == 3
    assert past_of([*lost, over(3, **{"class": "failed"})]).lost == 0
