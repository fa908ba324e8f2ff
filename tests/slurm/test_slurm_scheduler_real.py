"""The scheduler against a real SLURM: submission, refusal, states, cancel, and SLURM away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
from support.host_lists import HOST_LISTS

from orchestrator.agent.hosts import expand
from orchestrator.errors import SchedulerUnreachable
from orchestrator.runs.layout import RunLayout
from orchestrator.schedulers import slurm_query
from orchestrator.schedulers.base import JobState
from orchestrator.schedulers.slurm import Slurm
from orchestrator.schedulers.slurm_refusal import SubmissionRefused

pytestmark = pytest.mark.slurm

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    """A run folder with a name that no other job has borne."""
    return tmp_path / f"job-{os.urandom(4).hex()}"


def test_a_job_runs_on_two_nodes_with_the_gpus_it_asked_for(run):
    body = "srun bash -c 'echo \"$SLURM_NODEID of $SLURM_NNODES on $CUDA_VISIBLE_DEVICES\"'"
    job_id, layout = helpers.submit(run, body, "--nodes=2", "--gres=gpu:2")
    info = helpers.wait_for_state(job_id, layout)
    assert info.state is JobState.COMPLETED, helpers.say(job_id, layout)
    assert sorted(layout.scheduler_log.read_text().splitlines()) == [
        "0 of 2 on 0,1",
        "1 of 2 on 0,1",
    ]


@pytest.mark.parametrize("text", HOST_LISTS)
def test_a_list_of_hosts_means_to_slurm_what_its_agents_take_it_for(text):
    argv = ["scontrol", "show", "hostnames", text]
    assert subprocess.run(argv, capture_output=True, text=True).stdout.split() == expand(text)


def test_sbatch_is_given_the_bundles_own_bytes_and_nothing_else_is_left(run):
    job_id, layout = helpers.submit(run, 'cat "$0"')
    helpers.wait_for_state(job_id, layout)
    script = layout.bundle / "job.sbatch"
    assert layout.scheduler_log.read_bytes() == script.read_bytes()
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert files == {"bundle/job.sbatch", "scheduler.log"}


def test_a_hostile_run_folder_reaches_sbatch_as_it_is(tmp_path):
    run = tmp_path / "a b;$(touch canary)'\"%j,%x-é" / f"job-{os.urandom(4).hex()}"
    layout = helpers.RunLayout(run)
    layout.bundle.mkdir(parents=True)
    proof = tmp_path / "proof"
    script = layout.bundle / "job.sbatch"
    script.write_text(f"#!/bin/bash\n#SBATCH --output=/dev/null\necho é >{proof}\n")
    job_id = Slurm().submit(None, layout)
    helpers.wait_for(proof.exists, "the job ran", story=lambda: helpers.say(job_id, layout))
    assert not list(tmp_path.rglob("canary"))
    assert not Path("canary").exists()


def test_a_job_is_found_by_its_run_id_while_it_waits_and_after_it_ended(run, tmp_path, monkeypatch):
    assert Slurm().find(run.name) is None
    job_id, layout = helpers.submit(run, "true", "--begin=now+600")
    assert Slurm().find(run.name) == job_id
    Slurm().cancel(layout, job_id)
    assert Slurm().find(run.name) == job_id
    helpers.hide_from_squeue(tmp_path, monkeypatch)
    assert helpers.wait_for(lambda: Slurm().find(run.name), "sacct knows the job") == job_id


@pytest.mark.parametrize(
    ("option", "said", "key"),
    [
        ("--partition=nowhere", "partition", "slurm.partition"),
        ("--gres=fpga:1", "generic resource", "slurm.gpu_flag"),
        ("--gres=gpu:64", "node configuration", "resources"),
        ("--mem=900T", "Memory", "resources.memory"),
        ("--constraint=unicorn", "feature", "slurm.constraint"),
        ("--nodelist=mars", "node name", "slurm.nodelist"),
        ("--reservation=table", "reservation", "slurm.reservation"),
        ("--frobnicate=1", "frobnicate", "slurm.options"),
    ],
)
def test_a_refusal_is_slurms_own_sentence_with_the_key_to_change(run, capfd, option, said, key):
    with pytest.raises(SubmissionRefused) as caught:
        helpers.submit(run, "true", option)
    assert said in caught.value.message
    assert key in caught.value.hint
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""
    queued = subprocess.run(["squeue", "-h", f"--name={run.name}"], capture_output=True, text=True)
    assert queued.stdout == ""


def test_cancel_ends_a_running_job_and_a_job_that_is_gone_is_no_error(run):
    job_id, layout = helpers.submit(run, "srun sleep 600")
    helpers.wait_for_state(job_id, layout, {JobState.RUNNING})
    Slurm().cancel(layout, job_id)
    assert helpers.wait_for_state(job_id, layout).state is JobState.CANCELLED
    Slurm().cancel(layout, job_id)
    Slurm().cancel(layout, "999999999")


def test_a_job_of_the_same_number_on_another_cluster_is_left_alone(run, tmp_path, monkeypatch):
    """What one sees from a second cluster under the same home, or from one set up anew."""
    job_id, layout = helpers.submit(run, "sleep 600")
    helpers.wait_for_state(job_id, layout, {JobState.RUNNING})
    elsewhere = RunLayout(tmp_path / f"{run.name}-elsewhere")
    assert helpers.state(job_id, elsewhere).state is JobState.UNKNOWN
    Slurm().cancel(elsewhere, job_id)
    assert helpers.state(job_id, layout).state is JobState.RUNNING
    Slurm().cancel(layout, job_id)
    helpers.wait_for_state(job_id, layout, {JobState.CANCELLED})
    helpers.hide_from_squeue(tmp_path, monkeypatch)
    helpers.wait_for_state(job_id, layout, {JobState.CANCELLED})
    assert helpers.state(job_id, elsewhere).state is JobState.UNKNOWN


def test_one_query_answers_for_jobs_of_every_kind(run, tmp_path):
    bodies = {"good": "true", "bad": "exit 3", "waiting": "true"}
    jobs = {}
    for kind, body in bodies.items():
        options = ["--begin=now+600"] if kind == "waiting" else []
        job_id, layout = helpers.submit(tmp_path / f"{run.name}-{kind}", body, *options)
        jobs[kind] = (job_id, layout)
    for kind in ("good", "bad"):
        helpers.wait_for_state(*jobs[kind])
    asked = dict(jobs.values()) | {"999999999": layout}
    good, bad, waiting, nobody = Slurm().query(asked)
    assert good.state is JobState.COMPLETED
    assert bad.state is JobState.FAILED
    assert (waiting.state, waiting.reason) == (JobState.PENDING, "BeginTime")
    assert nobody.state is JobState.UNKNOWN
    Slurm().cancel(*reversed(jobs["waiting"]))


def test_squeue_asked_for_all_jobs_says_the_same_of_each(run, tmp_path, monkeypatch):
    """As it is for more than five hundred; jobs of other names are not theirs."""
    jobs = [
        helpers.submit(tmp_path / f"{run.name}-{number}", "true", "--begin=now+600")
        for number in range(3)
    ]
    asked = dict(jobs) | {"999999999": jobs[0][1]}
    one_by_one = Slurm().query(asked)
    calls = []
    usual = slurm_query.ask
    monkeypatch.setattr(slurm_query, "ask", lambda argv: calls.append(argv) or usual(argv))
    monkeypatch.setattr(slurm_query, "CHUNK", 2)
    assert Slurm().query(asked) == one_by_one
    assert [info.reason for info in one_by_one[:3]] == ["BeginTime"] * 3
    asked_squeue = [argv for argv in calls if argv[0] == "squeue"]
    assert len(asked_squeue) == 1
    assert not [word for word in asked_squeue[0] if word.startswith(("--jobs", "--name"))]
    elsewhere = dict.fromkeys(asked, RunLayout(tmp_path / f"{run.name}-elsewhere"))
    assert {info.state for info in Slurm().query(elsewhere)} == {JobState.UNKNOWN}
    for job_id, layout in jobs:
        Slurm().cancel(layout, job_id)


def test_sacct_answers_for_what_squeue_has_forgotten(run, tmp_path, monkeypatch):
    job_id, layout = helpers.submit(run, "exit 3")
    helpers.wait_for_state(job_id, layout)
    helpers.hide_from_squeue(tmp_path, monkeypatch)
    info = helpers.wait_for_state(job_id, layout)
    assert (info.state, info.reason) == (JobState.FAILED, "FAILED (exit 3:0)")


@pytest.mark.slow
def test_the_time_limit_is_told_from_a_failure(run):
    job_id, layout = helpers.submit(run, "sleep 600", "--time=00:01")
    subprocess.run(["scontrol", "update", f"JobId={job_id}", "TimeLimit=0"], check=False)
    assert helpers.wait_for_state(job_id, layout, within=150).state is JobState.TIME_LIMIT


def test_submission_inside_an_allocation_hands_nothing_of_it_on(run, tmp_path):
    """A step of one allocation submits a job of another size to another partition."""
    seen = tmp_path / "seen"
    _, layout = helpers.bundle_with(
        run,
        f"srun bash -c '[[ $SLURM_NODEID != 0 ]] || env >{seen}.part'; mv {seen}.part {seen}",
        "--nodes=2",
        "--partition=high",
    )
    submitter = (
        "import sys; from pathlib import Path; "
        "from orchestrator.runs.layout import RunLayout; "
        "from orchestrator.schedulers.slurm import Slurm; "
        "print(Slurm().submit(None, RunLayout(Path(sys.argv[1]))))"
    )
    env = os.environ | {
        "PYTHONPATH": str(CHECKOUT),
        "SBATCH_PARTITION": "nowhere",
        "SBATCH_GRES": "fpga:1",
        "RANK": "7",
        "MASTER_ADDR": "elsewhere",
        "PTX_RUN_ID": "another",
    }
    argv = ["srun", "-Q", "-N1", "-n1", "--gres=gpu:3", sys.executable, "-c", submitter, str(run)]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    assert helpers.wait_for_state(job_id, layout).state is JobState.COMPLETED
    inner = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    assert inner["SLURM_JOB_ID"] == job_id
    assert inner["SLURM_NNODES"] == "2"
    assert inner["SLURM_JOB_PARTITION"] == "high"
    leaked = {"RANK", "MASTER_ADDR", "PTX_RUN_ID", "SBATCH_GRES", "CUDA_VISIBLE_DEVICES"}
    assert not leaked & inner.keys()


@pytest.mark.slow
def test_a_dead_controller_is_unreachable_for_every_command(run, tmp_path, monkeypatch):
    job_id, layout = helpers.submit(run, "true")
    conf = Path(os.environ["SLURM_CONF"])
    dead = tmp_path / "etc"
    shutil.copytree(conf.parent, dead)
    text = conf.read_text().replace("SlurmctldPort=", "SlurmctldPort=1 #")
    (dead / "slurm.conf").write_text(text.replace("AccountingStoragePort=", "#"))
    monkeypatch.setenv("SLURM_CONF", str(dead / "slurm.conf"))
    for call in (
        Slurm().check,
        lambda: Slurm().find(run.name),
        lambda: Slurm().cancel(layout, job_id),
        lambda: Slurm().submit(None, layout),
    ):
        with pytest.raises(SchedulerUnreachable) as caught:
            call()
        assert caught.value.exit_code == 4
        assert "--scheduler local" in caught.value.hint
    assert str(dead) in caught.value.hint


def test_accounting_answers_for_a_job_while_the_controller_is_away(run, tmp_path, monkeypatch):
    job_id, layout = helpers.submit(run, "true")
    helpers.wait_for_state(job_id, layout)
    helpers.wait_for(lambda: helpers.sacct_states(job_id) == ["COMPLETED"], "sacct has the end")
    conf = Path(os.environ["SLURM_CONF"])
    dead = tmp_path / "etc"
    shutil.copytree(conf.parent, dead)
    text = conf.read_text().replace("SlurmctldPort=", "SlurmctldPort=1 #")
    (dead / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(dead / "slurm.conf"))
    # The name of a short job comes to the database some seconds after its end.
    helpers.wait_for_state(job_id, layout, {JobState.COMPLETED})


def test_a_missing_configuration_is_unreachable(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(SchedulerUnreachable) as caught:
        Slurm().check()
    assert str(tmp_path / "slurm.conf") in caught.value.message
