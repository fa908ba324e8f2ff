"""What a rank accepts as its plan, and which settings it carries out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.training_ranks import plan_file

from orchestrator.spec.policies import Checkpoint
from orchestrator.training.errors import NotSupported, PlanMismatch
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.support import refuse_unsupported, settings_without_effect


def load(folder: Path, **changed: Any) -> TrainingPlan:
    path = plan_file(folder, **{"world_size": 2, **changed})
    return load_plan({"PTX_PLAN": str(path), "PTX_ATTEMPT": "7"}, gpus=0)


def test_the_attempt_decides_where_metrics_go(tmp_path: Path) -> None:
    path = load(tmp_path).metrics_path
    assert path == tmp_path / "run" / "attempts" / "007" / "metrics.jsonl"


def test_a_moved_run_folder_is_followed(tmp_path: Path) -> None:
    path = plan_file(tmp_path, world_size=2)
    plan = load_plan({"PTX_PLAN": str(path), "PTX_RUN_DIR": "/moved"}, gpus=0)
    assert plan.metrics_path == Path("/moved/attempts/000/metrics.jsonl")


def test_a_plan_may_have_fields_that_training_does_not_know(tmp_path: Path) -> None:
    assert load(tmp_path, new_in_a_later_ptx=1).world_size == 2


def test_without_ptx_the_launcher_says_how_many_ranks() -> None:
    plan = load_plan({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, gpus=0)
    assert (plan.world_size, plan.procs_per_node, plan.gpus_per_node) == (4, 2, 0)
    assert plan.global_batch == 4 * plan.training.micro_batch
    assert plan.metrics_path is None


@pytest.mark.parametrize(("gpus", "used"), [(0, 0), (1, 0), (2, 2), (8, 2)])
def test_without_ptx_gpus_are_used_where_each_rank_has_one(gpus: int, used: int) -> None:
    plan = load_plan({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, gpus=gpus)
    assert plan.gpus_per_node == used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as a plan"),
        ("{", "cannot be read as a plan"),
        ("[]", "has version None"),
        ('{"version": 2}', "has version 2, and this ptx reads version 1"),
        ('{"version": 1}', "has no field 'world_size'"),
    ],
)
def test_what_is_no_plan_is_said_in_a_sentence(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PlanMismatch, match=r"plan\.json") as caught:
        load_plan({"PTX_PLAN": str(path)}, gpus=0)
    assert message in caught.value.message


def test_a_section_of_another_ptx_is_named(tmp_path: Path) -> None:
    path = plan_file(tmp_path, world_size=1)
    plan = json.loads(path.read_text())
    plan["training"]["optimizer"]["name"] = "muon"
    path.write_text(json.dumps(plan))
    with pytest.raises(PlanMismatch, match=r"optimizer\.name"):
        load_plan({"PTX_PLAN": str(path)}, gpus=0)


@pytest.mark.parametrize(
    ("training", "strategy", "setting"),
    [
        ({}, {"name": "fsdp"}, "strategy: fsdp"),
        ({}, {"name": "zero", "stage": 1}, "strategy: zero"),
        ({}, {"name": "ddp", "tensor_parallel": 2}, "strategy.tensor_parallel"),
        ({}, {"name": "ddp", "sequence_parallel": True}, "strategy.sequence_parallel"),
        ({}, {"name": "ddp", "pipeline_parallel": 2}, "strategy.pipeline_parallel"),
        ({"lora": {}}, {"name": "ddp"}, "training.lora"),
        ({"trainable": ["norm"]}, {"name": "ddp"}, "training.trainable"),
        ({"compile": True}, {"name": "ddp"}, "training.compile"),
        ({"local_sgd": {"interval": 4}}, {"name": "ddp"}, "training.local_sgd"),
        ({"find_micro_batch": True}, {"name": "ddp"}, "training.find_micro_batch"),
        ({"activation_checkpointing": {"mode": "full"}}, {"name": "ddp"}, "checkpointing"),
        ({"optimizer": {"name": "adamw-8bit"}}, {"name": "ddp"}, "adamw-8bit"),
        ({"schedule": {"name": "exponential"}}, {"name": "ddp"}, "final_ratio"),
    ],
)
def test_no_setting_that_would_train_something_else_passes(
    tmp_path: Path, training: dict[str, Any], strategy: dict[str, Any], setting: str
) -> None:
    plan = load(tmp_path, training=training, strategy=strategy)
    with pytest.raises(NotSupported) as caught:
        refuse_unsupported(plan)
    assert setting in caught.value.message
    assert caught.value.hint


def test_plain_ddp_is_refused_nothing_and_warned_of_nothing(tmp_path: Path) -> None:
    plan = load(tmp_path)
    refuse_unsupported(plan)
    assert settings_without_effect(plan) == ()


def test_checkpoints_that_will_not_be_written_are_named(tmp_path: Path) -> None:
    plan = load(tmp_path, checkpoint=Checkpoint(every_steps=5, at_end=True).model_dump())
    assert settings_without_effect(plan) == ("checkpoint.every_steps", "checkpoint.at_end")
