"""The texts that sbatch reads, given to a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.archive import agent_archive
from orchestrator.plan.plan import Target
from orchestrator.plan.planner import plan
from orchestrator.render.sbatch import job_sbatch
from orchestrator.render.sbatch_header import sbatch_line
from orchestrator.render.standalone import standalone
from orchestrator.spec.job import JobSpec

pytestmark = pytest.mark.slurm

RANK = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
assert dist.get_world_size() == int(os.environ["WORLD_SIZE"]) == 4
assert total.item() == 10
assert not [name for name in os.environ if name.startswith("SLURM")]
print("rank", dist.get_rank(), "of four", flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def sbatch(script: Path, folder: Path, **env: str) -> str:
    """Submit and wait; the job's last state."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_JOB", "SBATCH"))}
    done = subprocess.run(
        ["sbatch", "--parsable", str(script)],
        cwd=folder,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        shown = field(job, "JobState")
        if shown not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
            return shown
        time.sleep(0.5)
    subprocess.run(["scancel", job], check=False)
    raise AssertionError(f"job {job} did not end")


def field(job: str, name: str) -> str:
    shown = subprocess.run(
        ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, check=True
    )
    return shown.stdout.partition(f" {name}=")[2].partition(" ")[0]


@pytest.mark.parametrize("value", ["plain", "a b", "a#b", 'a"b', "a'b", "a\\b", "$(x)`y`;", "%j,é"])
def test_sbatch_reads_a_quoted_value_byte_for_byte(tmp_path: Path, value: str) -> None:
    script = tmp_path / "job"
    line = sbatch_line("comment", value)
    script.write_text(f"#!/bin/bash\n{line}\n#SBATCH --output=/dev/null\ntrue\n")
    done = subprocess.run(
        ["sbatch", "--hold", "--parsable", str(script)], capture_output=True, text=True, check=True
    )
    job = done.stdout.strip()
    try:
        shown = subprocess.run(
            ["scontrol", "show", "job", job], capture_output=True, text=True, check=True
        )
        assert f"Comment={value}" in [line.strip() for line in shown.stdout.splitlines()]
    finally:
        subprocess.run(["scancel", job], check=True)


def rendered(folder: Path, **more: Any) -> tuple[JobSpec, Any]:
    (folder / "rank.py").write_text(RANK)
    spec = JobSpec.model_validate(
        {
            "name": "x",
            "scheduler": "slurm",
            "entrypoint": {"script": "rank.py"},
            "python": sys.executable,
            "resources": {"nodes": 2, "gpus_per_node": 0, "procs_per_node": 2},
        }
        | more
    )
    target = Target(sys.executable, folder)
    return spec, plan(spec, folder / "job.yaml", target, "x-000001", folder / "runs" / "x-000001")


def test_the_schedulers_log_lies_in_a_folder_with_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's %j %% $(touch canary) é # \""
    folder.mkdir()
    spec, made = rendered(folder)
    run = Path(made.run_dir)
    run.mkdir(parents=True)
    (folder / "job.sbatch").write_bytes(job_sbatch(spec, made))
    # There is no bundle, so the job fails, and says so in its log.
    assert sbatch(folder / "job.sbatch", folder) == "FAILED"
    assert "agent.pyz" in (run / "scheduler.log").read_text()
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.slow
def test_a_standalone_file_trains_on_two_nodes_where_ptx_cannot_be_imported(
    tmp_path: Path,
) -> None:
    poison = tmp_path / "poison" / "orchestrator"
    poison.mkdir(parents=True)
    (poison / "__init__.py").write_text("raise ImportError('ptx is not here')\n")
    spec, made = rendered(tmp_path)
    script = tmp_path / "alone.sbatch"
    script.write_bytes(standalone(spec, made, agent_archive(), RANK.encode()))
    state = sbatch(script, tmp_path, PYTHONPATH=str(poison.parent))
    [run] = (tmp_path / "ptx-runs").iterdir()
    logs = sorted(run.glob("attempts/000/node-*/rank-*.log"), key=lambda path: path.name)
    assert state == "COMPLETED", "".join(path.read_text() for path in logs)
    assert [path.name for path in logs] == [f"rank-{rank:05d}.log" for rank in range(4)]
    for rank, log in enumerate(logs):
        assert f"rank {rank} of four" in log.read_text()
    records = [json.loads(path.read_text()) for path in run.rglob("rank-*.exit.json")]
    assert [record["exit_code"] for record in records] == [0] * 4
