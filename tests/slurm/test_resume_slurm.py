"""`ptx resume` against the real SLURM: another job under the same run, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from restarting import Start
from support import kill_at
from support.ptx import Ptx, eventually

from orchestrator.runs.events import read_events
from orchestrator.runs.layout import RunLayout

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

SPEC = """
name: again
scheduler: slurm
entrypoint: {command: [python3, -c, "print('here')"]}
resources: {nodes: 1, gpus_per_node: 0, procs_per_node: 1, time_limit: 5m}
setup: ["exit 3"]
"""
HELD = ["--set", "slurm.options.hold=true"]
POINTS = {"before sbatch": 0, "while sbatch runs": None, "after sbatch": 1}
"""Where the client is killed, and how many jobs SLURM then has; while sbatch runs it is one or
none."""


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    (tmp_path / "again.yaml").write_text(SPEC)
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})


def jobs(run: Path, states: str = "all") -> list[str]:
    argv = ["squeue", "-h", f"--states={states}", f"--name={run.name}", "--format=%i"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return sorted(told.split(), key=int)


def test_a_resumed_run_is_a_new_job_of_its_own_size_under_the_same_run(
    ptx: Ptx, tmp_path: Path
) -> None:
    run = ptx.submit(tmp_path / "again.yaml")
    assert ptx("wait", run.name).returncode == 1
    first = ptx.state(run)
    assert (first["state"], first["attempts"]) == ("launch-error", [0])

    done = ptx("resume", run.name, "--nodes", "2", "--set", "setup=[]")
    assert done.returncode == 0, done.stderr
    assert "changed: resources.nodes  1 -> 2" in done.stderr

    assert ptx("wait", run.name).returncode == 0, ptx.story(run)
    state = ptx.state(run)
    assert (state["state"], state["attempts"], state["world_size"]) == ("completed", [0, 1], 2)
    assert int(state["job_id"]) > int(first["job_id"])
    assert [node["node"] for node in state["node_states"]] == [0, 1]


@pytest.mark.parametrize("point", POINTS)
def test_a_resumption_that_is_killed_is_one_job_or_none(
    ptx: Ptx, tmp_path: Path, point: str
) -> None:
    run = ptx.submit(tmp_path / "again.yaml", *HELD)
    try:
        assert ptx("cancel", run.name).returncode == 0
        eventually(lambda: ptx.state(run)["state"] == "cancelled", within=60, what="the cancel")
        old = jobs(run)
        assert len(old) == 1

        driver = Ptx(ptx.runs, ptx.env, argv=(sys.executable, kill_at.__file__, point))
        assert driver("resume", run.name).returncode == -signal.SIGKILL

        def settled() -> bool:
            return str(ptx.state(run)["state"]) in ("pending", "cancelled")

        eventually(settled, within=60, what="a verdict", story=lambda: ptx.story(run))
        new = [job for job in jobs(run) if job not in old]
        state = ptx.state(run)
        wanted = POINTS[point]
        assert len(new) in ((0, 1) if wanted is None else (wanted,))
        assert state["state"] == ("pending" if new else "cancelled")
        assert state["job_id"] == (new or old)[0]
        again = ptx("resume", run.name, *HELD)
        assert again.returncode == (5 if new else 0), again.stderr
        assert len(jobs(run)) == 2
    finally:
        subprocess.run(["scancel", f"--name={run.name}"], check=True)


def test_the_job_of_a_resumption_bears_its_number(ptx: Ptx, tmp_path: Path) -> None:
    run = ptx.submit(tmp_path / "again.yaml", *HELD)
    try:
        ptx.ok("cancel", run.name)
        eventually(lambda: ptx.state(run)["state"] == "cancelled", within=60, what="the cancel")
        told = json.loads(ptx.ok("resume", run.name, *HELD, "--json"))
        submitted = [e for e in read_events(RunLayout(run)) if e.type == "submitted"]
        assert [event.fields.get("submission") for event in submitted] == [None, 1]
        assert submitted[-1].text("job_id") == told["job_id"]
    finally:
        subprocess.run(["scancel", f"--name={run.name}"], check=True)


@pytest.mark.parametrize("elsewhere", [[], ["--set", "scheduler=local"]])
def test_a_run_is_not_resumed_beside_a_job_of_it_that_its_folder_knows_nothing_of(
    ptx: Ptx, tmp_path: Path, elsewhere: list[str]
) -> None:
    """As one whose supervisor was killed before it could note what it had submitted."""
    run = ptx.submit(tmp_path / "again.yaml")
    assert ptx("wait", run.name).returncode == 1
    wrap = ["--hold", f"--output={tmp_path}/out", "--wrap=sleep 600"]
    argv = ["sbatch", "--parsable", f"--job-name={run.name}", *wrap]
    job = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        done = ptx("resume", run.name, *elsewhere)
        assert done.returncode == 5, done.stdout + done.stderr
        assert f"its job {job} is in the queue" in done.stderr
        assert not list((run / "events").glob("resume-*"))
    finally:
        subprocess.run(["scancel", job], check=True)


def test_an_element_is_not_resumed_beside_its_own_job_that_is_requeued(
    ptx: Ptx, tmp_path: Path
) -> None:
    """SLURM has that under the array's name, like the job of another element that waits beside."""
    told = ptx.ok("submit", str(tmp_path / "again.yaml"), "--array", "2")
    runs = [ptx.runs / run_id for run_id in told.split()]
    ids = [str(ptx.state(run)["job_id"]) for run in runs]
    one, job = runs[1], ids[1]
    try:
        for run in runs:
            assert ptx("wait", run.name).returncode == 1
        subprocess.run(["scontrol", "requeuehold", *ids], check=True)
        eventually(lambda: set(ids) <= set(waiting()), within=60, what="both in the queue")
        done = ptx("resume", one.name)
        assert done.returncode == 5, done.stdout + done.stderr
        assert f"its job {job} is in the queue" in done.stderr
        assert not list((one / "events").glob("resume-*"))
        subprocess.run(["scancel", job], check=True)
        eventually(lambda: job not in waiting(), within=60, what="the end of it")
        assert ids[0] in waiting()
        ptx.ok("resume", one.name, *HELD)
        assert len(jobs(one)) == 1
    finally:
        subprocess.run(["scancel", *ids], check=False)
        subprocess.run(["scancel", f"--name={one.name}"], check=True)


def waiting() -> list[str]:
    argv = ["squeue", "-h", "-r", "--states=PENDING", "-o", "%i"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def test_a_job_that_is_requeued_by_hand_beside_the_one_that_has_its_place_trains_nothing(
    start: Start,
) -> None:
    run = start({"steps": 10000})
    run.until_step(5)
    old = run.job
    subprocess.run(["scancel", old], check=True)
    run.until(lambda: run.ptx.state(run.layout.root)["state"] == "cancelled", "the cancel")
    run.until(lambda: not run.squeue(), "the job's end")
    run.ptx.ok("resume", run.layout.run_id)
    run.until_attempt(1)
    subprocess.run(["scontrol", "requeue", old], check=True)
    run.until(lambda: run.sacct(old)[-1] == "FAILED", "the end of its second start")
    assert "`ptx resume` has put another in its place" in run.layout.scheduler_log.read_text()
    _, step = run.steps()[-1]
    run.until_step(step + 5, attempt=1)
    assert [event.text("job_id") for event in run.events("job_started")] == [old, run.job]
    assert {attempt for attempt, _ in run.steps()} == {0, 1} and run.job != old
    # The newest one's own job is no such job, however often it starts.
    subprocess.run(["scontrol", "requeue", run.job], check=True)
    run.until_attempt(2)
    assert [event.text("job_id") for event in run.events("job_started")] == [old, *[run.job] * 2]
