"""A run of several attempts, as `ptx status`, `ptx logs` and `ptx wait` tell of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.made_checkpoints import made_checkpoint
from support.made_runs import MadeRun
from support.ptx import Ptx

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import FOLLOW, PATIENCE, ROOT


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})


def thrice(ptx: Ptx) -> MadeRun:
    """A node failed, then a rank did, and the third attempt came through."""
    run = MadeRun(ptx.runs, "long-aaaaaa", created=time.time() - 4000).submitted()
    run.started()
    for step in range(10, 110, 10):
        run.metrics(t=step * 10, step=step, steps=210, start_step=0, seconds=90.0, loss=3.0)
    run.over("node-failure", t=1110, where="requeue", message="node n0 does not answer")
    run.started(attempt=1, t=1200)
    for step in range(90, 210, 10):
        run.metrics(attempt=1, t=1210 + step, step=step, steps=210, start_step=80, seconds=95.0)
    run.ended([1, 0], attempt=1, t=1500, message="RuntimeError: NCCL error")
    run.over("failed", attempt=1, t=1501, where="allocation", message="rank 0 exited with 1")
    run.started(attempt=2, t=1600)
    run.metrics(attempt=2, t=1700, step=210, steps=210, start_step=200, seconds=50.0, loss=1.5)
    return run.ended([0, 0], attempt=2, t=2000).over("completed", attempt=2, t=2001)


def test_status_shows_every_attempt_and_what_they_cost(ptx: Ptx) -> None:
    thrice(ptx)
    page = ptx.ok("status", "long")
    rows = {line.split()[0]: line for line in page.splitlines() if line.strip()}
    assert "3: restarted after 1 failed, 1 node-failure" in rows["attempts"]
    assert "node-failure  queued again" in page
    assert page.index("again in place") < page.index("rank 0 exited with 1")
    # 80 of the first attempt's steps, 120 of the second's and 10 of the third's: 720 + 1140 + 50 s
    training = rows["training"]
    assert "95.6% of 33m18s went into steps that were kept, at least 20 steps lost" in training
    assert max(len(line) for line in page.splitlines() if "attempts/" not in line) <= 100


def between_reports(ptx: Ptx, reason: str, codes: list[int], **told: Any) -> str:
    """What `ptx status` calls lost where a report comes every 1000 steps, a save every 200, and an
    attempt that had saved step 2000 ended so."""
    run = MadeRun(ptx.runs, "rare-aaaaaa", created=time.time() - 4000).submitted().started()
    run.metrics(t=100, step=1000, start_step=0, seconds=90.0)
    run.metrics(t=200, step=2000, start_step=0, seconds=90.0)
    ranks = {str(rank): code for rank, code in enumerate(codes)}
    run.event(210, "node_ended", attempt=0, node=0, rc=1, reason=reason, ranks=ranks, **told)
    run.over("failed", t=211, where="allocation").started(attempt=1, t=212)
    run.metrics(attempt=1, t=300, step=3000, start_step=2000, seconds=90.0)
    run.ended([0, 0], attempt=1, t=310).over("completed", attempt=1, t=311)
    page = ptx.ok("status", "rare")
    return next(line for line in page.splitlines() if "steps lost" in line).rpartition("kept, ")[2]


def test_steps_after_the_last_report_were_lost_as_far_as_an_agent_knew_of_them(ptx: Ptx) -> None:
    killed = {"stepped": True, "start_step": 0, "step": 2050}
    assert between_reports(ptx, "rank-failed", [-9, 143], **killed) == "at least 50 steps lost"
    cost = json.loads(ptx.ok("status", "rare", "--json"))["goodput"]
    assert (cost["kept_steps"], cost["lost_steps"]) == (3000, 50)
    assert cost["kept_seconds"] == 270.0


def test_what_nobody_knows_of_a_crash_is_not_called_nothing(ptx: Ptx) -> None:
    told = between_reports(ptx, "rank-failed", [1, 143])
    assert told == "an unknown number of steps lost"


def test_ranks_that_stopped_as_they_were_asked_to_lost_no_step(ptx: Ptx) -> None:
    late = {"stepped": True, "start_step": 0, "step": 1998}
    assert between_reports(ptx, "stopped", [143, 143], **late) == "0 steps lost"


def test_the_same_stands_in_json(ptx: Ptx) -> None:
    run = thrice(ptx)
    told: dict[str, Any] = json.loads(ptx.ok("status", "long", "--json"))
    assert (told["state"], told["attempts"], told["attempt"]) == ("completed", [0, 1, 2], 2)
    assert told["restarts"] == {"node-failure": 1, "failed": 1}
    assert told["resumed"] == 0
    assert [(one["class"], one["where"]) for one in told["history"]] == [
        ("node-failure", "requeue"),
        ("failed", "allocation"),
        ("completed", None),
    ]
    cost = told["goodput"]
    assert (cost["kept_seconds"], cost["kept_steps"], cost["lost_steps"]) == (1910.0, 210, 20)
    assert cost["wall_seconds"] == pytest.approx(1998)
    assert cost["effective_training_time_ratio"] == pytest.approx(1910 / 1998)
    assert told["ended"] == pytest.approx(run.created + 2000)


def test_a_run_of_one_attempt_is_shown_without_the_table(ptx: Ptx) -> None:
    MadeRun(ptx.runs, "once-aaaaaa").completed()
    page = ptx.ok("status", "once")
    assert "ATTEMPT" not in page and "attempts  " not in page
    assert json.loads(ptx.ok("status", "once", "--json"))["goodput"] is None


def test_a_run_that_failed_and_has_saved_is_one_command_from_going_on(ptx: Ptx) -> None:
    run = MadeRun(ptx.runs, "down-aaaaaa").failed()
    assert "ptx resume" not in ptx("status", "down").stderr
    made_checkpoint(run.layout.root, 10)
    assert ptx("status", "down").stderr.endswith("\n      ptx resume down-aaaaaa\n")


def test_logs_are_those_of_the_newest_attempt_unless_asked(ptx: Ptx) -> None:
    run = MadeRun(ptx.runs, "log-aaaaaa").completed().started(attempt=1, t=70)
    run.ended([0, 0], attempt=1, t=80)
    for attempt in (0, 1):
        log = run.layout.rank_log(attempt, 0, 0)
        log.write_text(f"2026-11-21T00:00:0{attempt}.000000Z o words of attempt {attempt}\n")
    assert "attempt 1" in ptx.ok("logs", "log") and "attempt 0" not in ptx.ok("logs", "log")
    assert "attempt 0" in ptx.ok("logs", "log", "--attempt", "0")
    both = ptx.ok("logs", "log", "--attempt", "all")
    assert both.index("attempt 0") < both.index("attempt 1")


def test_wait_goes_on_through_restarts(ptx: Ptx) -> None:
    run = MadeRun(ptx.runs, "wait-aaaaaa").supervised().started()
    run.ended([0, 1], t=10)  # nobody has said yet what is to follow

    argv = [*ptx.argv, "wait", "wait"]
    env = os.environ | {"PTX_RUNS": str(ptx.runs)} | ptx.env
    with subprocess.Popen(
        argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None and waiting.stderr is not None
        time.sleep(1.5)
        assert waiting.poll() is None
        run.over("failed", t=11, where="allocation")
        told = ""
        while "Restarting: attempt 0 ended, failed" not in told:
            line = waiting.stderr.readline()
            assert line, told
            told += line
        run.started(attempt=1, t=20).ended([0, 0], attempt=1, t=30)
        shown, rest = waiting.communicate(timeout=PATIENCE)
        assert waiting.returncode == 0, told + rest
    assert "completed" in shown


def test_what_a_run_took_is_from_its_first_attempt_on(ptx: Ptx) -> None:
    run = thrice(ptx)
    argv = [sys.executable, "-c", FOLLOW, str(run.layout.root)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert "long-aaaaaa completed after 33m18s (attempt 2: 6m40s): " in done.stderr
    assert "completed  33m18s  attempt 2: 6m40s" in ptx.ok("top", "long", "--once")
