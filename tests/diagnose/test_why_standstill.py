"""A run that goes on and gets nowhere is told apart from one that is busy, by times of files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from support.made_logs import leave
from support.made_runs import MadeRun

from orchestrator.diagnose import standstill
from orchestrator.diagnose.verdict import Verdict
from orchestrator.diagnose.why import why
from orchestrator.runs import server_time
from orchestrator.runs.observe import observe_one


@pytest.fixture
def live(tmp_path: Path) -> MadeRun:
    run = MadeRun(tmp_path, "live-aaaaaa", nodes=2, created=time.time() - 7200).supervised()
    for node in range(2):
        run.started(node)
        (run.layout.node(0, node) / "heartbeat").write_text('{"t": 1, "seq": 3}')
        leave(run, 2 * node, "step 40\nloading shard 7", node=node)
        leave(run, 2 * node + 1, "step 40", node=node)
    return run


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def quiet(run: MadeRun, seconds: float) -> None:
    for path in run.layout.attempt(0).glob("node-*/rank-*.log"):
        age(path, seconds + (path.name < "rank-00002"))


def reports(run: MadeRun, every: float, last: float) -> None:
    """Ten of them, the newest `last` seconds ago."""
    for step in range(10):
        run.metrics(t=7200 - last - (9 - step) * every, step=step * 10, steps=1000)
    age(run.layout.metrics(0), last)


def told(run: MadeRun) -> Verdict:
    return why(observe_one(run.layout, ask=False)[0])


def test_a_run_that_reports_gets_on(live: MadeRun) -> None:
    reports(live, every=10, last=20)
    quiet(live, 3600)
    assert (told(live).kind, told(live).rule) == ("running", "")


def test_one_that_has_not_reported_for_long_stands_still(live: MadeRun) -> None:
    reports(live, every=10, last=1500)
    quiet(live, 1400)
    verdict = told(live)
    assert (verdict.kind, verdict.state, verdict.rule) == ("running", "running", "stands-still")
    assert (
        "no step was reported for 25 min (the last was 90; before, a report came every 10 s)"
        ", and no rank printed anything for 23 min" in verdict.sentence
    )
    assert verdict.evidence[0].path == "attempts/000/metrics.jsonl"
    assert verdict.evidence[0].line == 10
    assert "hang_after" in verdict.next
    live.layout.bundle.mkdir(exist_ok=True)
    live.layout.plan.write_text('{"restart": {"hang_after": 60}}')
    assert "in the spec" not in told(live).next  # it stands there


def test_one_that_reports_seldom_is_given_longer(live: MadeRun) -> None:
    reports(live, every=300, last=1500)
    quiet(live, 3600)
    assert told(live).rule == ""


def test_ranks_that_print_do_not_stand_still_however_long_the_report_is_due(live: MadeRun) -> None:
    """A long evaluation after quick reports."""
    reports(live, every=1, last=1500)
    quiet(live, standstill.LEAST - 60)
    assert told(live).rule == ""
    quiet(live, standstill.LEAST + 60)
    assert told(live).rule == "stands-still"


def test_what_took_long_once_may_take_long_again(live: MadeRun) -> None:
    """A silent evaluation between two reports; the newest report is older than it took."""
    live.metrics(t=7200 - 1500 - 1000, step=0, steps=1000)
    reports(live, every=1, last=1500)
    quiet(live, 1500)
    assert told(live).rule == ""
    reports(live, every=1, last=2100)
    assert told(live).rule == "stands-still"


@pytest.mark.parametrize(
    ("seconds", "rule"), [(standstill.UNREPORTED + 60, "stands-still"), (60, "")]
)
def test_without_reports_what_the_ranks_print_counts(
    seconds: float, rule: str, live: MadeRun
) -> None:
    quiet(live, seconds)
    verdict = told(live)
    assert verdict.rule == rule
    if rule:
        assert verdict.evidence[0].text == "step 40"
        assert verdict.evidence[0].path.startswith("attempts/000/node-0001/rank-0000")


def test_of_many_ranks_the_last_one_may_be_the_one_that_prints(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "large-aaaaaa", nodes=300, created=time.time() - 7200).supervised()
    for node in range(300):
        run.started(node)
        (run.layout.node(0, node) / "heartbeat").write_text('{"t": 1, "seq": 3}')
        for rank in range(2 * node, 2 * node + 2):
            run.layout.rank_log(0, node, rank).write_text("step 40")
    quiet(run, 3600)
    assert told(run).rule == "stands-still"
    age(run.layout.rank_log(0, 299, 599), 5)
    assert (told(run).kind, told(run).rule) == ("running", "")


def test_a_run_that_has_printed_nothing_yet_is_not_blamed(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "new-aaaaaa").supervised().started()
    assert told(run).rule == ""


def test_the_time_of_the_file_server_counts_and_not_this_machines(live: MadeRun) -> None:
    """All files are an hour old by this clock, and as young as the heartbeats by the server's."""
    reports(live, every=10, last=3000)
    quiet(live, 3000)
    for node in range(2):
        age(live.layout.node(0, node) / "heartbeat", 2995 - 2860)
    assert told(live).rule == "stands-still"
    age(live.layout.metrics(0), 2995 - 2860 + 20)
    assert told(live).rule == ""


def test_a_clock_here_that_is_ahead_silences_no_node(
    live: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    monkeypatch.setattr(server_time, "_seen", {})
    monkeypatch.setattr(time, "time", lambda: right() + 600)
    assert told(live).rule == ""


def test_a_node_without_a_heartbeat_is_named(live: MadeRun) -> None:
    reports(live, every=10, last=10)
    age(live.layout.node(0, 1) / "heartbeat", 600)
    verdict = told(live)
    assert (verdict.rule, verdict.node) == ("no-heartbeat", 1)
    assert "node 1 (n1) gave no sign of life for 10 min" in verdict.sentence
    assert "sinfo" not in verdict.next  # there is no SLURM to ask


def test_damaged_reports_are_passed_over(live: MadeRun) -> None:
    huge = b'{"t": 1e9}\n{"t": NaN, "step": 1e999}\n{"t": 1' + b"0" * 400 + b"}\n"
    live.layout.metrics(0).write_bytes(
        b'{"v":1,\x00\n[1]\n{"t": "x", "step": []}\n' + b"[" * 2000 + b"\n" + huge + b'{"t"'
    )
    age(live.layout.metrics(0), 3600)
    quiet(live, 3600)
    assert told(live).rule == "stands-still"
