from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import resources
from orchestrator.plan.plan import Target
from orchestrator.plan.planner import plan
from orchestrator.render.bundle import Bundle, BundleFile
from orchestrator.render.renderer import render
from orchestrator.render.sbatch import job_sbatch
from orchestrator.spec.job import JobSpec


def bundle(nodes: int, launcher: str, strategy: str = "zero", source: bytes = b"") -> Bundle:
    spec = JobSpec.model_validate(
        {
            "name": "x",
            "scheduler": "slurm",
            "launcher": launcher,
            "strategy": {"name": strategy},
            "entrypoint": {"script": "train.py"},
            "resources": {"nodes": nodes, "gpus_per_node": 8},
        }
    )
    target = Target("/opt/python", Path("/home/kim"))
    made = plan(spec, Path("job.yaml"), target, "x-000001", Path("/runs/x-000001"))
    batch = (BundleFile("job.sbatch", job_sbatch(spec, made)),)
    return render(spec, made, batch, ("sbatch", "job.sbatch"), b"zip", source)


def test_the_files_stand_in_the_order_in_which_they_are_read() -> None:
    found = [file.path for file in bundle(2, "accelerate")]
    assert found == [
        "job.sbatch",
        "launch.sh",
        "accelerate.yaml",
        "deepspeed.json",
        "plan.json",
        "spec.yaml",
        "agent.pyz",
    ]


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate", "deepspeed"])
def test_every_launcher_of_a_zero_run_brings_deepspeeds_config(launcher: str) -> None:
    made = bundle(2, launcher)
    config = json.loads(made["deepspeed.json"].data)
    planned = json.loads(made["plan.json"].data)
    assert config["train_batch_size"] == planned["global_batch"] == 128
    assert "deepspeed.json" not in [file.path for file in bundle(2, launcher, "ddp")]


def test_the_spec_is_kept_byte_for_byte_and_only_the_agent_is_binary() -> None:
    source = b"\xef\xbb\xbfname: x\r\n# \xc3\xa9 \n"
    made = bundle(1, "torchrun", source=source)
    assert made["spec.yaml"].data == source
    assert [file.path for file in made if file.binary] == ["agent.pyz"]


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate", "deepspeed"])
def test_only_the_hostfile_grows_with_the_number_of_nodes(launcher: str) -> None:
    """So that a thousand nodes render about as fast as two."""
    small, large = bundle(2, launcher), bundle(1024, launcher)
    assert json.loads(large["plan.json"].data)["world_size"] == 8192
    for file in small:
        if file.path != "hostfile":
            assert len(large[file.path].data) < len(file.data) + 40
    if launcher == "deepspeed":
        assert len(large["hostfile"].data.splitlines()) == 1024


def test_data_is_found_beside_the_package_and_not_where_ptx_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("templates", "jobs"):
        (tmp_path / kind).mkdir()
    (tmp_path / "templates" / "launch.sh.j2").write_text("of somebody else")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resources.data_dir("templates").name == "templates"
    assert "of somebody else" not in resources.template("launch.sh.j2")


def test_an_installed_wheel_has_its_data_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "_data" / "jobs"
    inside.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path)
    assert resources.data_dir("jobs") == inside
