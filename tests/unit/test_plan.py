from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.plan.plan import Plan, Target
from orchestrator.plan.planner import plan
from orchestrator.spec.job import JobSpec

WORKDIR = Path("/home/kim/project")


def planned(
    spec: dict[str, Any],
    *,
    path: str = "jobs/job.yaml",
    gpus: int = 0,
    cpus: int = 8,
    booleans: frozenset[str] = frozenset(),
) -> Plan:
    whole = JobSpec.model_validate({"name": "x", "entrypoint": {"script": "train.py"}} | spec)
    target = Target("/opt/python", WORKDIR, gpus=gpus, cpus=cpus)
    return plan(whole, Path(path), target, "x-000001", Path("/runs/x-000001"), booleans)


@pytest.mark.parametrize(
    ("resources", "gpus", "procs"),
    [
        ({}, 0, 1),
        ({}, 4, 4),
        ({"procs_per_node": 2}, 0, 2),
        ({"procs_per_node": 2}, 4, 4),
        ({"gpus_per_node": 0, "procs_per_node": 3}, 4, 3),
        ({"gpus_per_node": 2}, 4, 2),
    ],
)
def test_a_rank_a_gpu_else_the_asked_cpu_ranks(
    resources: dict[str, Any], gpus: int, procs: int
) -> None:
    made = planned({"resources": resources}, gpus=gpus)
    assert (made.procs_per_node, made.world_size) == (procs, procs)
    assert made.gpus_per_node == (0 if resources.get("gpus_per_node") == 0 else min(procs, gpus))


def test_auto_gpus_on_a_cluster_are_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match="cannot know") as caught:
        planned({"scheduler": "slurm"})
    assert "gpus_per_node: 8" in (caught.value.hint or "")


def test_world_size_counts_every_node() -> None:
    made = planned({"scheduler": "slurm", "resources": {"nodes": 4, "gpus_per_node": 8}})
    assert made.world_size == 32
    assert made.data_parallel_size == 32


def test_model_parallel_ranks_are_taken_out_of_data_parallelism() -> None:
    made = planned(
        {
            "scheduler": "slurm",
            "resources": {"nodes": 2, "gpus_per_node": 8},
            "strategy": {"name": "fsdp", "tensor_parallel": 4, "pipeline_parallel": 2},
            "training": {"micro_batch": 3, "accumulation": 5},
        }
    )
    assert made.data_parallel_size == 2
    assert made.global_batch == 30


def test_ranks_that_do_not_split_into_groups_are_refused() -> None:
    with pytest.raises(UserError, match="6 ranks cannot be split into groups of 4"):
        planned({"strategy": {"name": "ddp", "tensor_parallel": 4}}, gpus=6)


def test_a_batch_that_is_no_product_names_what_would_be() -> None:
    training = {"micro_batch": 4, "accumulation": 2, "global_batch": 64}
    with pytest.raises(UserError, match="global_batch is 64") as caught:
        planned({"training": training}, gpus=2)
    assert caught.value.hint == "training.accumulation: 8 gives 64"
    assert planned({"training": training | {"accumulation": 8}}, gpus=2).global_batch == 64


def test_a_batch_that_no_accumulation_reaches_names_the_product() -> None:
    with pytest.raises(UserError) as caught:
        planned({"training": {"micro_batch": 4, "global_batch": 10}}, gpus=2)
    assert "training.global_batch: 8" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("resources", "scheduler", "expected"),
    [
        ({"procs_per_node": 2}, "local", 4),
        ({"procs_per_node": 16}, "local", 1),
        ({"procs_per_node": 2, "cpus_per_task": 10}, "local", 5),
        ({"gpus_per_node": 8, "cpus_per_task": 64}, "slurm", 8),
        ({"gpus_per_node": 8}, "slurm", None),
    ],
)
def test_cores_are_shared_by_the_ranks_of_a_node(
    resources: dict[str, Any], scheduler: str, expected: int | None
) -> None:
    made = planned({"scheduler": scheduler, "resources": resources}, cpus=8)
    assert made.cpus_per_proc == expected


@pytest.mark.parametrize(
    ("path", "script", "expected"),
    [
        ("jobs/job.yaml", "train.py", "/home/kim/project/jobs/train.py"),
        ("/specs/job.yaml", "../lib/train.py", "/lib/train.py"),
        ("job.yaml", "/abs/train.py", "/abs/train.py"),
        ("job.yaml", "$(x) y.py", "/home/kim/project/$(x) y.py"),
    ],
)
def test_a_script_is_found_from_the_specs_own_folder(path: str, script: str, expected: str) -> None:
    made = planned({"entrypoint": {"script": script}}, path=path)
    assert made.entrypoint == ("{python}", "-u", expected)


def test_modules_and_commands_keep_their_words() -> None:
    module = planned({"entrypoint": {"module": "a.b", "args": ["-x", "1"]}})
    assert module.entrypoint == ("{python}", "-u", "-m", "a.b", "-x", "1")
    command = planned({"entrypoint": {"command": ["./run", "a b"]}})
    assert command.entrypoint == ("./run", "a b")


def test_a_mapping_of_args_becomes_flags_and_a_list_stays_as_it_is() -> None:
    args = {
        "learning_rate": 1e-05,
        "steps": 20,
        "text": "a=b c",
        "negative": -1,
        "on": True,
        "off": False,
        "plain-off": False,
        "nothing": None,
        "many": [1, "two words", True],
    }
    made = planned({"entrypoint": {"script": "/t.py", "args": args}}, booleans=frozenset({"off"}))
    assert made.entrypoint[3:] == (
        "--learning_rate=1e-05",
        "--steps=20",
        "--text=a=b c",
        "--negative=-1",
        "--on",
        "--no-off",
        "--many",
        "1",
        "two words",
        "true",
    )
    assert made.args == args
    listed = planned({"entrypoint": {"script": "/t.py", "args": ["--a", "$x", ""]}})
    assert listed.entrypoint[3:] == ("--a", "$x", "")
    assert listed.args == {}


def test_workdir_is_where_submit_was_typed_unless_the_spec_says_otherwise() -> None:
    assert planned({}).workdir == "/home/kim/project"
    assert planned({"workdir": "../data"}).workdir == "/home/kim/project/data"
    assert planned({"workdir": "/scratch"}).workdir == "/scratch"


def test_port_zero_and_no_port_are_both_left_to_the_node() -> None:
    assert planned({"rendezvous": {"port": 0}}).rendezvous["port"] is None
    assert planned({}).rendezvous["port"] is None
    assert planned({"rendezvous": {"port": 12345, "timeout": "2m"}}).rendezvous == {
        "backend": "c10d",
        "port": 12345,
        "timeout": 120,
        "interface": None,
    }


def test_plan_json_is_the_plan_and_names_secrets_without_values() -> None:
    made = planned({"secrets": ["HF_TOKEN"]})
    stored = json.loads(made.to_json())
    assert stored["secrets"] == ["HF_TOKEN"]
    assert stored["version"] == 1
    assert stored["entrypoint"] == list(made.entrypoint)
