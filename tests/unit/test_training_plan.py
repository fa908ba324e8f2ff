"""What a rank accepts as its plan, and which settings it carries out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.training_ranks import plan_file

from orchestrator.training.errors import PlanMismatch
from orchestrator.training.plan import TrainingPlan, load_plan


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
