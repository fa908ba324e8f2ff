"""A run goes on by itself: warned, crashed, or hung."""

from __future__ import annotations

import os
import subprocess

import pytest
from restarting import Start
from support.ptx import LAUNCHERS

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("on_disturbed"),
]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_after_the_warning_the_job_is_requeued_once_and_no_step_is_lost(
    start: Start, launcher: str
) -> None:
    run = start({"steps": 10000}, launcher=launcher)
    run.until_step(5)
    job = run.job
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    run.until_attempt(1)
    assert run.events("signal"), "the warning was meant to reach the agents"
    assert [e.text("reason") for e in run.events("node_ended")] == ["stopped", "stopped"]
    assert run.endings() == [("time-limit", True, False, "requeue")]
    assert [e.text("reason") for e in run.events("requeue")] == ["time-limit"]
    assert run.squeue().split("|")[0] == job
    assert run.lost() == 0
    run.end()
    assert run.ended() == "CANCELLED"


def test_whoever_follows_the_logs_is_taken_through_the_queue_into_the_next_attempt(
    start: Start,
) -> None:
    run = start({"steps": 60})
    run.until_step(5)
    argv = [*run.ptx.argv, "logs", run.layout.run_id, "--follow"]
    env = os.environ | {"PTX_RUNS": str(run.ptx.runs)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as follower:
        subprocess.run(["scancel", "--signal=USR2", run.job], check=True)
        out, _ = follower.communicate(timeout=150)
    assert follower.returncode == 0
    run.until(lambda: len(run.endings()) == 2, "the supervisor's last word")
    assert run.endings() == [
        ("time-limit", True, False, "requeue"),
        ("completed", False, False, None),
    ]
    said = [line.split("] ")[-1] for line in out.splitlines()]
    (stopped,) = {line for line in said if line.startswith("stopped at step ")}
    goes_on = stopped.replace("stopped at", "ready from")
    assert said.count(stopped) == said.count(goes_on) == said.count("done") == 2
    assert said.index(stopped) < said.index(goes_on) < said.index("done")


def test_where_requeueing_is_forbidden_a_new_job_continues_the_run(start: Start) -> None:
    run = start({"steps": 10000}, slurm={"options": {"no-requeue": True}})
    run.until_step(5)
    job = run.job
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    run.until_attempt(1)
    assert run.endings() == [("time-limit", True, False, "new-job")]
    assert not run.events("requeue")
    assert run.job != job
    assert run.squeue().split("|")[0] == run.job
    assert run.lost() == 0


def test_a_cancelled_job_saves_and_stays_cancelled(start: Start) -> None:
    run = start({"steps": 10000, "every": 100000}, restart={"max": 5})
    run.until_step(5)
    subprocess.run(["scancel", run.job], check=True)  # not through ptx, which would note it
    assert run.ended() == "CANCELLED"
    assert run.endings() == [("cancelled", False, False, None)]
    assert run.committed() == [(run.steps()[-1][1], 0)]
    assert not run.events("requeue")


def test_a_crash_restarts_the_ranks_in_the_allocation_until_the_budget_is_used_up(
    start: Start,
) -> None:
    run = start(
        {"steps": 10000, "crash-in": 3, "crash-at": 15}, restart={"max": 2, "backoff": "1s"}
    )
    assert run.ended() == "FAILED"
    failed = ("failed", True, True, "allocation")
    assert run.endings() == [failed, failed, ("failed", False, False, None)]
    ends, starts = run.events("attempt_ended"), run.events("job_started")
    assert all("RuntimeError: on purpose at step" in e.text("message") for e in ends)
    assert "restart.max (2) is used up" in ends[-1].text("message")
    assert len({e.text("job_id") for e in starts}) == 1
    pauses = [begun.t - over.t for over, begun in zip(ends, starts[1:], strict=False)]
    assert pauses[0] >= 1
    assert pauses[1] >= 2
    assert run.steps()[0] == (0, 1)
    assert (1, 11) in run.steps(), "the checkpoint of step 10 was meant to be resumed"


@pytest.mark.parametrize(
    ("error", "name"), [("MemoryError", "out-of-memory"), ("ImportError", "failed")]
)
def test_what_would_end_the_same_way_is_not_started_again(
    start: Start, error: str, name: str
) -> None:
    run = start({"crash-in": 9, "crash-with": error}, restart={"max": 5}, resources={"nodes": 1})
    assert run.ended() == "FAILED"
    assert run.endings() == [(name, False, False, None)]
    assert error in run.events("attempt_ended")[0].text("message")


def test_a_hang_is_noticed_ended_and_started_again(start: Start) -> None:
    run = start(
        {"steps": 20, "hang-at": 12}, restart={"max": 1, "hang_after": "10s", "backoff": "1s"}
    )
    assert run.ended() == "COMPLETED"
    assert run.endings() == [
        ("hang", True, True, "allocation"),
        ("completed", False, False, None),
    ]
    assert "hang" in [e.text("reason") for e in run.events("node_ended")]
