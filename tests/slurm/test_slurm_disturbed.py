"""Preemption and node failure, on a cluster of its own where nobody else is hit."""

from __future__ import annotations

import os
import subprocess

import helpers
import pytest

from orchestrator.schedulers.base import JobState

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("on_disturbed"),
]


@pytest.fixture
def run(tmp_path):
    return tmp_path / f"job-{os.urandom(4).hex()}"


def test_a_preempted_job_comes_back_and_its_newest_start_counts(run, tmp_path, monkeypatch):
    body = '[[ ${SLURM_RESTART_COUNT:-0} -gt 0 ]] || srun sleep 600\necho "came back"'
    job_id, layout = helpers.submit(run, body, "--nodes=1", "--exclusive", "--requeue")
    helpers.wait_for_state(job_id, layout, {JobState.RUNNING})
    node = subprocess.run(
        ["squeue", "-h", "-j", job_id, "-o", "%N"], capture_output=True, text=True
    ).stdout.strip()
    other, other_layout = helpers.submit(
        tmp_path / f"{run.name}-high",
        "sleep 3",
        "--partition=high",
        f"--nodelist={node}",
        "--exclusive",
    )
    assert helpers.wait_for_state(other, other_layout).state is JobState.COMPLETED
    helpers.wait_for(lambda: "PREEMPTED" in helpers.sacct_states(job_id), "a preempted start")
    assert helpers.state(job_id, layout).state is not JobState.PREEMPTED
    info = helpers.wait_for_state(job_id, layout, within=240)
    assert info.state is JobState.COMPLETED, helpers.say(job_id, layout)
    assert layout.scheduler_log.read_text().splitlines()[-1] == "came back"
    helpers.hide_from_squeue(tmp_path, monkeypatch)
    assert helpers.wait_for_state(job_id, layout).state is JobState.COMPLETED
    assert helpers.sacct_states(job_id) == ["PREEMPTED", "COMPLETED"]


def test_a_lost_node_is_told_from_a_failure(run, disturbed):
    job_id, layout = helpers.submit(run, "sleep 600", "--nodes=1", "--no-requeue")
    helpers.wait_for_state(job_id, layout, {JobState.RUNNING})
    node = disturbed.run("squeue", "-h", "-j", job_id, "-o", "%N").stdout.strip()
    disturbed.kill_node(node)
    assert helpers.wait_for_state(job_id, layout, within=120).state is JobState.NODE_FAILURE
