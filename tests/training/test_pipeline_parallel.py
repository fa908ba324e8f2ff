"""Real ranks over gloo: layers on ranks of their own train as on one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.oracle import SCRIPT, Series
from support.same_training import assert_same, case, trained
from support.training_ranks import plan_file, run

from orchestrator.training.engines.pipeline_stage import layer_counts
from orchestrator.training.errors import NotSupported

LLAMA, TIED = {"kind": "llama"}, {"kind": "llama", "tied": True}
LORA = {"kind": "llama", "layers": 2, "lora": 2}
DDP = {"name": "ddp"}
PIPELINE = {"name": "ddp", "pipeline_parallel": 2}
RECOMPUTED = {"training": {"activation_checkpointing": {"mode": "full"}}}
HALF = {"training": {"precision": "fp16-mixed"}}

ONE = {
    "whole": case((8, 1), DDP, LLAMA),
    "whole, tied": case((8, 1), DDP, TIED),
    "whole, packed": case((8, 1), DDP, LLAMA, packed=True),
    "whole, lora": case((2, 4), DDP, LORA),
    "whole, half": case((2, 4), DDP, TIED, **HALF),
}
TWO = {
    "pipeline": ("whole", case((2, 4), PIPELINE, LLAMA)),
    "pipeline, tied": ("whole, tied", case((2, 4), PIPELINE, TIED)),
    "packed, recomputed": (
        "whole, packed",
        case((4, 2), PIPELINE, LLAMA, packed=True, **RECOMPUTED),
    ),
    "fewer micro batches than stages": ("whole", case((8, 1), PIPELINE, LLAMA)),
    "lora": ("whole, lora", case((2, 4), PIPELINE, LORA)),
}
FOUR = {
    "pipeline x ddp": ("whole, tied", case((1, 4), PIPELINE, TIED)),
    "pipeline x fsdp": ("whole", case((2, 2), PIPELINE | {"name": "fsdp"}, LLAMA)),
    "pipeline x tensor": (
        "whole, tied",
        case((4, 2), PIPELINE | {"tensor_parallel": 2, "sequence_parallel": True}, TIED),
    ),
}
APART = {"half": case((2, 4), PIPELINE, TIED, **HALF)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {size: tmp_path_factory.mktemp(f"ranks-{size}") for size in (1, 2, 4)}


@pytest.fixture(scope="module")
def series(folders: dict[int, Path]) -> Series:
    found = trained(folders[1], ONE, world_size=1)
    for size, cases, others in ((2, TWO, APART), (4, FOUR, {})):
        named = {name: made for name, (_, made) in cases.items()} | others
        found |= trained(folders[size], named, world_size=size)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO)
def test_two_stages_train_as_one_model(name: str, folders: dict[int, Path], series: Series) -> None:
    assert_same(name, folders[2], TWO[name][0], folders[1], series)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_it_goes_with_data_and_tensor_parallelism(
    name: str, folders: dict[int, Path], series: Series
) -> None:
    assert_same(name, folders[4], FOUR[name][0], folders[1], series)


@pytest.mark.slow
def test_stages_share_one_loss_scale(series: Series) -> None:
    """fp16 rounds otherwise where the stages meet; a scale of its own would throw a stage off."""
    assert series["half"]["losses"] == pytest.approx(series["whole, half"]["losses"], abs=0.02)


@pytest.mark.slow
def test_more_stages_than_layers_is_one_sentence_on_every_rank(tmp_path: Path) -> None:
    cases = {"deep": case((2, 4), PIPELINE, {"kind": "llama", "layers": 1})}
    plan = plan_file(tmp_path, world_size=2)
    out = str(tmp_path / "series.json")
    for rank in run(SCRIPT, out, json.dumps(cases), world_size=2, plan=plan):
        assert rank.code == NotSupported.exit_code
        assert "strategy.pipeline_parallel is 2, and the model has 1 layers to cut" in rank.err
        assert "Traceback" not in rank.err


@pytest.mark.parametrize(
    ("layers", "stages", "head", "counts"),
    [
        (4, 2, 0.0, [2, 2]),
        (5, 2, 0.0, [3, 2]),
        (4, 2, 1.0, [3, 1]),
        (16, 4, 4.3, [5, 5, 5, 1]),
        (32, 4, 1.2, [9, 8, 8, 7]),
        (2, 2, 100.0, [1, 1]),
        (3, 1, 1.0, [3]),
    ],
)
def test_stages_are_balanced_with_the_output_layer_counted(
    layers: int, stages: int, head: float, counts: list[int]
) -> None:
    assert layer_counts(layers, stages, head) == counts
    assert sum(counts) == layers


def test_a_stage_without_a_layer_is_refused() -> None:
    with pytest.raises(NotSupported, match="pipeline_parallel is 5, and the model has 4 layers"):
        layer_counts(4, 5, 0.0)
