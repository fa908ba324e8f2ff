"""Every text that a run executes, reviewed as text.

PTX_UPDATE_GOLDEN=1 writes the files anew: read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from orchestrator.plan.plan import Target
from orchestrator.plan.planner import plan
from orchestrator.render.bundle import BundleFile
from orchestrator.render.renderer import render
from orchestrator.render.sbatch import job_sbatch
from orchestrator.render.standalone import standalone
from orchestrator.spec.job import JobSpec

HERE = Path(__file__).parent
TARGET = Target("/opt/ptx/bin/python", Path("/home/kim/project"), gpus=0, cpus=8)
SPECS = ["local-cpu", "slurm-one-node", "slurm-4x8"]
LAUNCHERS = ["torchrun", "accelerate", "deepspeed"]
AGENT = b"the agent, as a zip archive\n"


def bundle_files(name: str, launcher: str) -> dict[str, bytes]:
    source = (HERE / "specs" / f"{name}.yaml").read_bytes()
    spec = JobSpec.model_validate({**yaml.safe_load(source), "launcher": launcher})
    run_id = f"{spec.name}-20261121-004711-k3x"
    planned = plan(
        spec, Path("jobs") / f"{name}.yaml", TARGET, run_id, Path("/home/kim/runs", run_id)
    )
    if spec.scheduler != "slurm":
        return {file.path: file.data for file in render(spec, planned, (), (), AGENT, source)}
    batch = (BundleFile("job.sbatch", job_sbatch(spec, planned)),)
    bundle = render(spec, planned, batch, ("sbatch",), AGENT, source)
    files = {file.path: file.data for file in bundle}
    if launcher == "torchrun":
        files["standalone.sbatch"] = standalone(spec, planned, AGENT)
    return files


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("name", SPECS)
def test_the_bundle_is_what_was_reviewed(name: str, launcher: str) -> None:
    files = bundle_files(name, launcher)
    del files["agent.pyz"], files["spec.yaml"]
    folder = HERE / "expected" / f"{name}-{launcher}"
    if os.environ.get("PTX_UPDATE_GOLDEN") == "1":
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for path, data in files.items():
            (folder / path).write_bytes(data)
    expected = {path.name: path.read_text() for path in folder.iterdir()}
    assert {path: data.decode() for path, data in files.items()} == expected


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert bundle_files("slurm-4x8", "deepspeed") == bundle_files("slurm-4x8", "deepspeed")
