"""The supervisor of a job is killed while its ranks live: the run goes on, and nobody starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import cluster_processes as processes
import pytest
from cluster import Cluster
from restarting import Start, SteppingRun, silent_slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

STEPS = {"steps": 60}


def _batch(run: SteppingRun) -> dict[str, list[int]]:
    """The processes of the batch step: the shell, the supervisor, and srun (two)."""
    plan = os.fsencode(run.layout.plan)
    found: dict[str, list[int]] = {"shell": [], "supervisor": [], "srun": []}
    for pid in processes.all_pids():
        argv = processes.command(pid).split(b"\0")
        if b"slurm_script" in argv[-2 if len(argv) > 1 else 0]:
            name = processes.environment(pid).get(b"SLURM_JOB_NAME")
            if name == run.layout.run_id.encode():
                found["shell"].append(pid)
        elif plan in argv and b"job" in argv:
            found["supervisor"].append(pid)
        elif plan in argv and argv[0] == b"srun":
            found["srun"].append(pid)
    return found


def _kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        processes.send(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: not any(map(processes.start_time, pids)), 10)


@pytest.mark.parametrize("nodes", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_a_supervisor_killed_alone_is_replaced_and_no_rank_is_disturbed(
    start: Start, nodes: int
) -> None:
    run = start({"steps": 120}, resources={"nodes": nodes})
    run.until_step(15)
    (killed,) = _batch(run)["supervisor"]
    _kill([killed])
    run.until(lambda: _batch(run)["supervisor"], "a new supervisor")
    assert _batch(run)["supervisor"] != [killed]
    assert run.ended() == "COMPLETED"
    assert run.endings() == [("completed", False, False, None)]
    assert len(run.events("job_started")) == 1
    assert not run.events("requeue")
    assert run.steps() == [(0, step) for step in range(1, 121)]


def test_a_crash_under_the_second_supervisor_is_restarted_in_the_allocation(start: Start) -> None:
    args = {"steps": 60, "crash-in": 1, "crash-at": 45}
    run = start(args, restart={"max": 1, "backoff": "1s"})
    run.until_step(15)
    _kill(_batch(run)["supervisor"])
    assert run.ended() == "COMPLETED"
    assert [ending[:2] for ending in run.endings()] == [("failed", True), ("completed", False)]
    assert len({event.text("job_id") for event in run.events("job_started")}) == 1
    assert run.lost() <= 10


def test_where_srun_dies_too_the_ranks_are_started_again_in_the_allocation(start: Start) -> None:
    run = start({"steps": 150})  # they still train when they are told to stop
    run.until_step(15)
    batch = _batch(run)
    _kill(batch["supervisor"] + batch["srun"])
    assert run.ended() == "COMPLETED"
    assert run.endings()[0] == ("node-failure", True, False, "allocation")
    assert [event.integer("attempt") for event in run.events("job_started")] == [0, 1]
    assert not run.events("requeue")
    assert run.lost() <= 10


@pytest.mark.parametrize("nodes", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_batch_step_killed_whole_is_brought_back_by_the_ranks_agent(
    start: Start, nodes: int
) -> None:
    run = start(STEPS, resources={"nodes": nodes})
    run.until_step(15)
    batch = _batch(run)
    _kill([*batch["shell"], *batch["supervisor"], *batch["srun"]])
    job = run.job
    run.until_attempt(1)  # SLURM calls the job failed until it is sent back
    assert run.ended() == "COMPLETED"
    assert [event.text("job_id") for event in run.events("job_started")] == [job, job]
    assert len(run.events("requeue")) == 1
    assert run.endings()[0] == ("node-failure", True, False, "requeue")
    assert run.lost() <= 10


@pytest.mark.soak
def test_while_slurm_is_silent_nothing_begins_beside_ranks_that_live(
    start: Start, _session_cluster: Cluster
) -> None:
    run = start({"steps": 10000})
    run.until_step(15)
    batch = _batch(run)
    with silent_slurm(_session_cluster):
        _kill(batch["supervisor"] + batch["srun"])
        run.until(lambda: _batch(run)["supervisor"], "a new supervisor")
        before = run.steps()[-1]
        time.sleep(60)
        assert run.steps()[-1] > before, "the ranks were meant to live"
        assert len(run.events("job_started")) == 1
    run.until_attempt(1)
    assert run.endings()[0] == ("node-failure", True, False, "allocation")
    assert run.lost() == 0, "they were told to save first"


@pytest.mark.soak
def test_the_job_is_brought_back_though_slurm_was_silent_when_its_batch_step_died(
    start: Start, _session_cluster: Cluster
) -> None:
    run = start({"steps": 10000})
    run.until_step(15)
    batch = _batch(run)
    with silent_slurm(_session_cluster):
        _kill([*batch["shell"], *batch["supervisor"], *batch["srun"]])
        time.sleep(60)
        assert len(run.events("job_started")) == 1
    run.until_attempt(1)
    assert len(run.events("requeue")) == 1
    assert run.endings()[0] == ("node-failure", True, False, "requeue")


@pytest.mark.soak
@pytest.mark.parametrize("option", ["requeue", "no-requeue"])
def test_a_warned_job_goes_on_once_though_slurm_was_silent_when_it_had_saved(
    start: Start, _session_cluster: Cluster, option: str
) -> None:
    run = start({"steps": 10000, "every": 100000}, slurm={"options": {option: True}})
    run.until_step(15)
    job, plan = run.job, os.fsencode(run.layout.plan)
    with silent_slurm(_session_cluster):
        for pid in processes.all_pids():
            argv = processes.command(pid).split(b"\0")
            if plan in argv and b"node" in argv and argv[0] != b"srun":
                processes.send(pid, signal.SIGUSR2)
        run.until(lambda: run.committed(), "a checkpoint")
        time.sleep(75)
        assert len(run.events("job_started")) == 1
    run.until_attempt(1)
    time.sleep(20)  # a second one would have begun, too
    assert len(run.events("job_started")) == 2
    assert run.lost() == 0
    (ending,) = run.endings()  # where it is to go on was said before SLURM could be asked
    assert ending[:3] == ("time-limit", True, False)
    queued = [row.split("|")[0] for row in run.squeue().splitlines()]
    assert queued == [run.job]
    assert (run.job == job) == (option == "requeue")


def test_a_job_cancelled_without_its_supervisor_stays_cancelled(start: Start) -> None:
    run = start({"steps": 10000})
    run.until_step(15)
    _kill(_batch(run)["supervisor"])
    subprocess.run(["scancel", run.job], check=True)
    assert run.ended() == "CANCELLED"
    assert not run.events("requeue")
    assert len(run.events("job_started")) == 1
