"""Submitting hand-made bundles to the real SLURM, and waiting for what becomes of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import pytest

from orchestrator.render.bundle import Bundle, BundleFile
from orchestrator.runs.layout import RunLayout
from orchestrator.schedulers.base import JobInfo, JobState
from orchestrator.schedulers.slurm import Slurm

T = TypeVar("T")
ENDED = frozenset(JobState) - {JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN}


def bundle_with(run: Path, body: str, *options: str) -> tuple[Bundle, RunLayout]:
    """A run folder whose job.sbatch is `body` below these #SBATCH options."""
    layout = RunLayout(run)
    layout.bundle.mkdir(parents=True)
    lines = [f"--job-name={layout.run_id}", f"--output={layout.scheduler_log}", *options]
    text = "".join(["#!/bin/bash\n", *(f"#SBATCH {line}\n" for line in lines), "\n", body, "\n"])
    script = layout.bundle / "job.sbatch"
    script.write_text(text)
    slurm = Slurm()
    files = (BundleFile("job.sbatch", script.read_bytes()),)
    return Bundle(layout.run_id, run, "slurm", files, slurm.submit_argv(layout)), layout


def submit(run: Path, body: str, *options: str) -> tuple[str, RunLayout]:
    """(job id, run folder) of a job made from these lines."""
    bundle, layout = bundle_with(run, body, *options)
    return Slurm().submit(bundle, layout), layout


def state(job_id: str, layout: RunLayout) -> JobInfo:
    (info,) = Slurm().query({job_id: layout})
    return info


def wait_for_state(
    job_id: str, layout: RunLayout, states: Collection[JobState] = ENDED, within: float = 90
) -> JobInfo:
    """The first answer in one of these states (default: any final one)."""

    def look() -> JobInfo | None:
        info = state(job_id, layout)
        return info if info.state in states else None

    return wait_for(look, f"job {job_id} in {sorted(states)}", within, lambda: say(job_id, layout))


def wait_for(
    look: Callable[[], T | None], what: str, within: float = 60, story: Callable[[], str] = str
) -> T:
    """The first true answer. The limit is generous: it speaks of hangs, not of speed."""
    end = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {within:.0f} s: {what}\n{story()}"
        time.sleep(0.3)
    return seen


def say(job_id: str, layout: RunLayout) -> str:
    """What SLURM and the job itself have to say, for a failed assertion."""
    log = layout.scheduler_log
    output = log.read_text(errors="replace") if log.exists() else "(no scheduler.log)"
    shown = subprocess.run(["scontrol", "show", "job", job_id], capture_output=True, text=True)
    return f"{shown.stdout}{shown.stderr}\n{sacct_states(job_id)}\n{output[-3000:]}"


def sacct_states(job_id: str) -> list[str]:
    """Raw state of each start of a job, oldest first."""
    argv = ["sacct", "-nPX", "--duplicates", "-o", "State", "-j", job_id]
    return subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()


def hide_from_squeue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue as it is once MinJobAge has passed: it has forgotten the job."""
    stub = folder / "squeue"
    stub.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--jobs=*) ;; *) exit 0;; esac\n'
        "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n"
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
