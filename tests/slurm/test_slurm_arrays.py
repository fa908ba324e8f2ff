"""A job array on the real SLURM: each element is a run of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from restarting import SteppingRun, stepping_spec
from support import kill_at
from support.ptx import Ptx, eventually

from orchestrator.runs.array import element_of

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


class Elements(NamedTuple):
    ptx: Ptx
    name: str
    runs: list[SteppingRun]

    def states(self) -> list[str]:
        return [self.ptx.state(run.layout.root)["state"] for run in self.runs]


Submit = Callable[..., Elements]


@pytest.fixture
def submit(tmp_path: Path) -> Iterator[Submit]:
    arrays: list[Elements] = []

    def one(size: str, **sections: object) -> Elements:
        ptx = Ptx(tmp_path / "runs")
        args = {"steps": 10000, "every": 100000}
        spec = stepping_spec(tmp_path, args, resources={"nodes": 1}, **sections)
        told = ptx.ok("submit", str(spec), "--array", size, "--set", "training.seed={index}")
        runs = [SteppingRun(ptx, ptx.runs / run_id) for run_id in told.split()]
        element = element_of(runs[0].layout.run_id)
        assert element is not None
        arrays.append(Elements(ptx, element.array, runs))
        return arrays[-1]

    yield one
    for array in arrays:
        for name in (array.name, *(run.layout.run_id for run in array.runs)):
            subprocess.run(["scancel", f"--name={name}"], check=True)


def warn(run: SteppingRun) -> None:
    subprocess.run(["scancel", "--signal=USR2", run.job], check=True)


def test_a_warned_element_comes_back_under_its_number_and_the_others_go_on(submit: Submit) -> None:
    array = submit("3%2")
    warned, cancelled, third = array.runs
    number = warned.job.partition("_")[0]
    assert [run.job for run in array.runs] == [f"{number}_{index}" for index in range(3)]
    plans = [json.loads(run.layout.plan.read_text()) for run in array.runs]
    assert [plan["training"]["seed"] for plan in plans] == [0, 1, 2]
    warned.until_step(5)
    cancelled.until_step(5)
    assert array.states() == ["running", "running", "pending"]
    assert "as many tasks of its array run as it allows" in array.ptx.ok("why", third.layout.run_id)
    warn(warned)
    third.until_step(1)  # it has the place of the one that waits now
    array.ptx.ok("cancel", cancelled.layout.run_id)
    warned.until_attempt(1)
    assert warned.endings() == [("time-limit", True, False, "requeue")]
    assert [event.text("job_id") for event in warned.events("job_started")] == [f"{number}_0"] * 2
    assert warned.lost() == 0
    assert {attempt for attempt, _ in third.steps()} == {0}
    assert array.states() == ["running", "cancelled", "running"]
    array.ptx.ok("cancel", array.name)
    third.until(lambda: array.states() == ["cancelled"] * 3, "the end of all")


def test_an_element_cancelled_while_it_waits_takes_no_other_with_it(submit: Submit) -> None:
    array = submit("4%1")
    running, by_ptx, waiting, by_hand = array.runs
    running.until_step(1)
    array.ptx.ok("cancel", by_ptx.layout.run_id)
    subprocess.run(["scancel", by_hand.job], check=True)
    running.until(lambda: array.states()[3] != "pending", "word of it")
    assert array.states() == ["running", "cancelled", "pending", "cancelled"]
    array.ptx.ok("cancel", running.layout.run_id)
    waiting.until_step(1)
    assert array.ptx.ok("cancel", array.name).splitlines() == [
        f"{by_hand.layout.run_id} was cancelled already",
        f"{waiting.layout.run_id} is being cancelled",
        f"{by_ptx.layout.run_id} was cancelled already",
        f"{running.layout.run_id} was cancelled already",
    ]


def test_an_element_that_may_not_be_requeued_goes_on_in_a_job_of_its_own(submit: Submit) -> None:
    """The last one's number is the whole array's to SLURM: nothing is asked for by it."""
    array = submit("2", slurm={"options": {"no-requeue": True}})
    other, last = array.runs
    element = last.job
    other.until_step(5)
    last.until_step(5)
    warn(last)
    last.until_attempt(1)
    assert last.endings() == [("time-limit", True, False, "new-job")]
    assert element.endswith("_1") and last.job.isdigit()
    assert last.lost() == 0
    assert {attempt for attempt, _ in other.steps()} == {0} and not other.endings()
    assert array.states() == ["running", "running"]
    array.ptx.ok("cancel", array.name)
    last.until(lambda: array.states() == ["cancelled"] * 2, "the end of both")
    last.until(lambda: not last.squeue(), "an empty queue")


NOT_SUBMITTED = ("after the run folder", "before sbatch")
SUBMITTED = ("after sbatch", "after the submission")


@pytest.mark.parametrize("point", [*NOT_SUBMITTED, "while sbatch runs", *SUBMITTED])
def test_the_runs_of_a_killed_submission_are_elements_of_one_array_or_nothing(
    point: str, tmp_path: Path
) -> None:
    spec = tmp_path / "killed.yaml"
    spec.write_text(
        "{name: killed, scheduler: slurm, entrypoint: {command: ['true']}, slurm: {options: {hold: "
        "true}}, resources: {nodes: 1, gpus_per_node: 0, time_limit: 5m}}"
    )
    driver = (sys.executable, str(Path(kill_at.__file__)), point)
    killed = Ptx(tmp_path / "runs", argv=driver)("submit", str(spec), "--array", "3")
    assert killed.returncode == -9
    ptx = Ptx(tmp_path / "runs")
    made = sorted((tmp_path / "runs").iterdir())
    assert len(made) == (1 if point == "after the run folder" else 3)
    element = element_of(made[0].name)
    assert element is not None
    try:
        told = eventually(lambda: _settled(ptx, made), within=60, what="a verdict on each")
        argv = ["squeue", "-h", "-r", f"--name={element.array}", "-o", "%i"]
        jobs = sorted(
            subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        )
        if jobs:
            assert [job.partition("_")[2] for job in jobs] == ["0", "1", "2"]
            assert told == [("pending", job) for job in jobs]
        else:
            assert told == [("launch-error", None)] * len(made)
        assert not (point in NOT_SUBMITTED and jobs)
        assert not (point in SUBMITTED and not jobs)
    finally:
        subprocess.run(["scancel", f"--name={element.array}"], check=True)


def _settled(ptx: Ptx, runs: list[Path]) -> list[tuple[str, str | None]]:
    """[] until each has a verdict."""
    states = [ptx.state(run) for run in runs]
    found = [(state["state"], state["job_id"]) for state in states]
    return found if all(state in ("pending", "launch-error") for state, _ in found) else []
