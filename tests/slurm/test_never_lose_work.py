"""Real training on a real SLURM, disturbed: its losses are those of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from support import disturb, kept_work
from support.ptx import Ptx, eventually

from orchestrator.checkpoints.names import committed_folders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.usefixtures("on_disturbed"),
]

STEPS = {"ddp": 500, "fsdp": 400, "zero 3": 160}
"""As many as take some seconds: SLURM is asked and told meanwhile."""
LONG = 1_000_000
"""More than a time limit has room for."""
ON_SLURM = ("--scheduler", "slurm", "--nodes", "2", "--set", "resources.procs_per_node=1")
HERE = ("--scheduler", "local")
NEVER_SKIPPED = {"restart__on": "[preempted, time-limit, node-failure, failed]", "restart__max": 3}
QUICK = {"restart__backoff": "1s"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[int, float]]:
    """The losses of a strategy on two ranks of this machine."""
    known: dict[str, dict[int, float]] = {}

    def losses(strategy: str) -> dict[int, float]:
        if strategy not in known:
            ptx = Ptx(tmp_path_factory.mktemp("undisturbed") / "runs")
            run = kept_work.submit(ptx, HERE, STEPS[strategy], **kept_work.STRATEGIES[strategy])
            ptx.ok("wait", run.name, "--timeout", "300s", timeout=330)
            known[strategy] = kept_work.losses(run)
            assert set(known[strategy]) == set(range(1, STEPS[strategy] + 1))
        return known[strategy]

    return losses


def started(ptx: Ptx, launcher: str, strategy: str, **more: object) -> Path:
    """A run on two nodes that has done some steps."""
    run = kept_work.submit(
        ptx,
        (*ON_SLURM, "--launcher", launcher),
        STEPS[strategy],
        **(kept_work.STRATEGIES[strategy] | NEVER_SKIPPED | QUICK | more),
    )
    eventually(
        lambda: kept_work.last_step(run) > kept_work.EVERY + 5,
        within=180,
        what="some steps",
        story=lambda: ptx.story(run),
    )
    return run


def completed(ptx: Ptx, run: Path) -> None:
    waited = ptx("wait", run.name, "--timeout", "400s", timeout=430)
    assert waited.returncode == 0, waited.stdout + waited.stderr + ptx.story(run)


def ended_as(run: Path, *classes: str) -> None:
    """What became of its attempts; the supervisor says so when the ranks have said theirs."""
    eventually(lambda: kept_work.classes(run) == [*classes], within=60, what=f"the ends {classes}")


def job_of(ptx: Ptx, run: Path) -> str:
    return str(ptx.state(run)["job_id"])


CASES = {
    "torchrun ddp warned": ("torchrun", "ddp", disturb.warn),
    "accelerate fsdp preempted": ("accelerate", "fsdp", disturb.preempt),
    "deepspeed zero 3 warned": ("deepspeed", "zero 3", disturb.warn),
}

ENDS = {disturb.warn: "time-limit", disturb.preempt: "preempted"}
"""The class of the attempt that it ends."""


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_told_in_time_loses_no_step(
    name: str,
    tmp_path: Path,
    disturbed: Cluster,
    undisturbed: Callable[[str], dict[int, float]],
) -> None:
    launcher, strategy, hit = CASES[name]
    ptx = Ptx(tmp_path / "runs")
    run = started(ptx, launcher, strategy)
    job_id = job_of(ptx, run)
    hit(disturbed, job_id)
    expected = undisturbed(strategy)  # while the other one waits in the queue
    completed(ptx, run)
    ended_as(run, ENDS[hit], "completed")
    assert job_of(ptx, run) == job_id
    assert kept_work.steps_lost(run) == 0, ptx.story(run)
    assert kept_work.losses(run) == expected


def test_a_terminated_run_has_saved_and_goes_on_when_a_person_says_so(
    tmp_path: Path,
    disturbed: Cluster,
    undisturbed: Callable[[str], dict[int, float]],
) -> None:
    ptx = Ptx(tmp_path / "runs")
    run = started(ptx, "accelerate", "ddp")
    disturb.terminate(disturbed, job_of(ptx, run))
    waited = ptx("wait", run.name, "--timeout", "120s", timeout=150)
    assert waited.returncode == 1, waited.stdout + waited.stderr + ptx.story(run)
    expected = undisturbed("ddp")
    ended_as(run, "cancelled")
    ptx.ok("resume", run.name)
    completed(ptx, run)
    assert kept_work.steps_lost(run) == 0, ptx.story(run)
    assert kept_work.losses(run) == expected


def test_a_run_longer_than_its_time_limit_goes_on_by_itself(
    tmp_path: Path, disturbed: Cluster
) -> None:
    """SLURM itself gives the warning, a minute after the start at the earliest."""
    ptx = Ptx(tmp_path / "runs")
    limit = {"resources__time_limit": "2m", "slurm__signal_before": 60}
    run = kept_work.submit(
        ptx, (*ON_SLURM, "--launcher", "torchrun"), LONG, **(NEVER_SKIPPED | QUICK | limit)
    )
    job_id = job_of(ptx, run)
    eventually(
        lambda: "time-limit" in kept_work.classes(run),
        within=240,
        what="the end of the first attempt",
        story=lambda: ptx.story(run),
    )
    saved = committed_folders(run / "checkpoints")[-1].step
    eventually(
        lambda: kept_work.attempts(run) == 2 and kept_work.last_step(run) > saved,
        within=120,
        what="steps of the next attempt",
        story=lambda: ptx.story(run),
    )
    assert job_of(ptx, run) == job_id
    steps = [step for attempt, step, _ in kept_work.records(run) if attempt]
    assert min(steps) == saved + 1, ptx.story(run)
    assert kept_work.steps_lost(run) == 0, ptx.story(run)
    ptx.ok("cancel", run.name)


def test_a_node_that_dies_costs_an_interval_and_the_save_that_was_under_way(
    tmp_path: Path,
    disturbed: Cluster,
    undisturbed: Callable[[str], dict[int, float]],
) -> None:
    """All processes of node 0 of the run get SIGKILL, its slurmd first."""
    ptx = Ptx(tmp_path / "runs")
    run = started(ptx, "torchrun", "ddp")
    assert disturb.kill_node(disturbed, run, 0) >= 4, "node 0 was meant to run something"
    committed = committed_folders(run / "checkpoints")[-1].step
    assert committed >= kept_work.committed_by(kept_work.last_step(run), kept_work.EVERY)
    expected = undisturbed("ddp")
    completed(ptx, run)
    steps = [step for attempt, step, _ in kept_work.records(run) if attempt]
    assert min(steps) == committed + 1, ptx.story(run)
    assert kept_work.losses(run) == expected
