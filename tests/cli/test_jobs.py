"""The shipped specs: valid as they stand, and renderable for every launcher and many nodes."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from support import llama_job
from support.ptx import CHECKOUT, LAUNCHERS, Ptx, exit_records

from orchestrator.plan.plan import Target
from orchestrator.plan.planner import plan
from orchestrator.render.launch_script import launch_script
from orchestrator.render.launcher import launch
from orchestrator.render.renderer import plan_json
from orchestrator.spec.loader import load

JOBS = CHECKOUT / "jobs"
SPECS = sorted(path.name for path in JOBS.glob("*.yaml"))
TWO_NODES = ["scheduler=slurm", "resources.nodes=2"]


def test_the_promised_specs_are_there() -> None:
    promised = {"quickstart", "ddp", "fsdp", "zero", "llama_lora_zero3", "hello", "sample"}
    assert {f"{name}.yaml" for name in promised} <= set(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_a_shipped_spec_loads_without_a_warning(name: str) -> None:
    loaded = load(JOBS / name)
    assert loaded.warnings == ()
    assert loaded.spec.name == name.removesuffix(".yaml").replace("_", "-")


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("name", SPECS)
def test_a_shipped_spec_renders_on_every_launcher_and_two_nodes(name: str, launcher: str) -> None:
    on_cpu = load(JOBS / name).spec.resources.gpus_per_node == "auto"
    where = ["resources.gpus_per_node=0"] if on_cpu else []
    loaded = load(JOBS / name, [*TWO_NODES, f"launcher={launcher}", *where])
    planned = plan(
        loaded.spec,
        loaded.path,
        Target(python="python3", workdir=CHECKOUT),
        run_id="x",
        run_dir=Path("/runs/x"),
        boolean_args=loaded.boolean_args,
    )
    ranks_of_a_node = loaded.spec.resources.procs_per_node or loaded.spec.resources.gpus_per_node
    assert planned.world_size == 2 * int(ranks_of_a_node)
    launched, files = launch(planned, loaded.spec.launcher.args)
    assert launch_script(loaded.spec, planned, launched).startswith(b"#!")
    assert json.loads(plan_json(planned))["launcher"] == launcher
    if loaded.spec.strategy.name == "zero" and launcher == "accelerate":
        assert any("deepspeed" in file.path or b"DEEPSPEED" in file.data for file in files)


@pytest.mark.parametrize("script", ["train_lm.py", "sample_lm.py"])
def test_the_args_of_the_entrypoints_need_nothing_but_pydantic_and_typing(script: str) -> None:
    """`ptx validate` evaluates the class alone, where torch may not be installed."""
    tree = ast.parse((JOBS / script).read_text())
    (cls,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Args"]
    used = {node.id for node in ast.walk(cls) if isinstance(node, ast.Name)}
    fields = {
        node.target.id
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    allowed = {"BaseModel", "ConfigDict", "Field", "Literal", "model_config"}
    assert used - fields - allowed <= {"str", "int", "float", "bool", "list"}


@pytest.mark.slow
def test_the_quickstart_trains_two_ranks_on_cpu(tmp_path: Path) -> None:
    """Its own settings, but few steps: the loss must have begun to fall."""
    ptx = Ptx(tmp_path / "runs")
    run = ptx.submit(
        JOBS / "quickstart.yaml",
        *("--set", "entrypoint.args.steps=30", "--set", "resources.gpus_per_node=0"),
    )
    waited = ptx("wait", run.name, "--timeout", "240s", timeout=300)
    assert waited.returncode == 0, waited.stdout + waited.stderr + ptx.story(run)
    assert [record["exit_code"] for record in exit_records(run)] == [0, 0]
    lines = (run / "attempts" / "000" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 1
    log = next(run.rglob("rank-00000.log")).read_text()
    assert re.search(r"held-out loss \d\.\d{4} nats/byte", log)


@pytest.mark.slow
def test_the_llama_job_trains_an_adapter_on_two_cpu_ranks_that_plain_peft_loads(
    tmp_path: Path,
) -> None:
    llama_job.trains(Ptx(tmp_path / "runs"), tmp_path, ("--scheduler", "local"), ranks=2)
