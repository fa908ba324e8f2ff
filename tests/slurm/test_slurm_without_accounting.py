"""A cluster of its own with no accounting, which is normal at many sites: sacct always fails."""

from __future__ import annotations

import os
import subprocess

import helpers
import pytest

from orchestrator.schedulers.base import JobState
from orchestrator.schedulers.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _bare_is_spoken_to(bare, _spoken_to, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(bare.conf))


@pytest.fixture
def run(tmp_path):
    return tmp_path / f"job-{os.urandom(4).hex()}"


def test_sacct_really_fails_here():
    done = subprocess.run(["sacct", "-n"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "disabled" in done.stderr


def test_squeue_alone_tells_how_a_job_ended(run, tmp_path):
    job_id, layout = helpers.submit(run, "exit 3")
    info = helpers.wait_for_state(job_id, layout)
    assert (info.state, info.reason) == (JobState.FAILED, "FAILED (NonZeroExitCode)")
    assert Slurm().find(run.name) == job_id


def test_a_job_that_squeue_has_forgotten_is_unknown_and_not_failed(run):
    job_id, layout = helpers.submit(run, "true")
    helpers.wait_for_state(job_id, layout)
    known, forgotten = Slurm().query({job_id: layout, "999999": layout})
    assert known.state is JobState.COMPLETED
    assert forgotten.state is JobState.UNKNOWN
    assert Slurm().find("never-submitted") is None
