"""One `ptx submit` killed with SIGKILL at a point, and what the next commands make of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support import kill_at
from support.ptx import Ptx, eventually

SPEC = """
name: killed
scheduler: slurm
entrypoint: {command: ["true"]}
resources: {nodes: 1, gpus_per_node: 0, time_limit: 5m}
slurm: {options: {hold: true}}
"""
SETTLED = ("none", "pending", "launch-error")


@dataclass(frozen=True)
class Verdict:
    killed: bool
    """That SIGKILL ended the submission."""
    jobs: tuple[str, ...]
    """What SLURM has under the run's id."""
    state: str
    """As `ptx status` says; `none` where it knows no such run."""
    job_id: str | None

    @property
    def right(self) -> bool:
        """Submitted once and known to be, or not at all and said to be."""
        if not self.killed or len(self.jobs) > 1:
            return False
        if self.jobs:
            return self.state == "pending" and self.job_id == self.jobs[0]
        return self.state in ("none", "launch-error") and self.job_id is None


def killed_at(point: str, folder: Path, run_id: str) -> Verdict:
    """Submit a held job, die at `point`, look twice; afterwards nothing of it is in the queue."""
    spec = folder / "killed.yaml"
    spec.write_text(SPEC)
    driver = (sys.executable, str(Path(kill_at.__file__)), point)
    submitted = Ptx(folder / "runs", argv=driver)("submit", str(spec), "--run-id", run_id)
    ptx = Ptx(folder / "runs")
    try:
        eventually(
            lambda: _state(ptx, run_id)[0] in ("none", *SETTLED), within=60, what="a verdict"
        )
        state, job_id = _state(ptx, run_id)
        return Verdict(submitted.returncode == -9, _jobs(run_id), state, job_id)
    finally:
        subprocess.run(["scancel", f"--name={run_id}"], check=True)


def _state(ptx: Ptx, run_id: str) -> tuple[str, str | None]:
    asked = ptx("status", run_id, "--json")
    if asked.returncode == 3:
        return "none", None
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout)
    return told["state"], told["job_id"]


def _jobs(run_id: str) -> tuple[str, ...]:
    argv = ["squeue", "--noheader", "--states=all", f"--name={run_id}", "--format=%i"]
    return tuple(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
