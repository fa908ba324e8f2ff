"""Real ranks over gloo: the same job divided differently is the same job."""

from __future__ import annotations

import pytest
from support.oracle import train

pytestmark = pytest.mark.slow

OPTIMIZER = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1}
COMMON = {
    "optimizer": OPTIMIZER,
    "clip_grad_norm": 1.0,
    "schedule": {"name": "cosine", "warmup_steps": 2},
}
STEPS = 6
ONE = {
    "whole": COMMON | {"micro_batch": 8},
    "accumulated": COMMON | {"micro_batch": 2, "accumulation": 4},
    "again": COMMON | {"micro_batch": 8},
    "other seed": COMMON | {"micro_batch": 8, "seed": 1},
    "unclipped": COMMON | {"micro_batch": 8, "clip_grad_norm": None},
    "sgd": {"micro_batch": 8, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}},
    "adam": {"micro_batch": 8, "optimizer": {"name": "adam", "lr": 1e-2, "fused": False}},
    "bf16": COMMON | {"micro_batch": 8, "precision": "bf16"},
    "bf16-mixed": COMMON | {"micro_batch": 8, "precision": "bf16-mixed"},
    "fp16-mixed": COMMON | {"micro_batch": 8, "precision": "fp16-mixed"},
}
TWO = {
    "divided": COMMON | {"micro_batch": 4},
    "divided and accumulated": COMMON | {"micro_batch": 1, "accumulation": 4},
}


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for world_size, cases in ((1, ONE), (2, TWO)):
        series = train(
            tmp_path_factory.mktemp("ranks"),
            {name: {"training": training} for name, training in cases.items()},
            world_size=world_size,
        )
        found |= {name: case["losses"] for name, case in series.items()}
    assert all(len(series) == STEPS for series in found.values())
    return found


def test_two_ranks_train_as_one_with_the_same_global_batch(losses: dict[str, list[float]]) -> None:
    assert losses["divided"] == pytest.approx(losses["whole"], abs=1e-5)


def test_accumulated_micro_batches_train_as_one_batch(losses: dict[str, list[float]]) -> None:
    assert losses["accumulated"] == pytest.approx(losses["whole"], abs=1e-5)
    assert losses["divided and accumulated"] == pytest.approx(losses["whole"], abs=1e-5)


def test_the_same_seed_repeats_exactly_and_another_does_not(
    losses: dict[str, list[float]],
) -> None:
    assert losses["again"] == losses["whole"]
    assert losses["other seed"] != losses["whole"]


def test_clipping_changes_training(losses: dict[str, list[float]]) -> None:
    """With the small norms of a run that is not clipped at all, the tests above prove less."""
    assert losses["unclipped"] != losses["whole"]


@pytest.mark.parametrize("name", sorted(ONE | TWO))
def test_the_loss_falls_with_every_optimizer_and_precision(
    losses: dict[str, list[float]], name: str
) -> None:
    assert losses[name][-1] < losses[name][0] - 0.1


@pytest.mark.parametrize("name", ["bf16", "bf16-mixed", "fp16-mixed"])
def test_lower_precision_is_used_and_stays_close(losses: dict[str, list[float]], name: str) -> None:
    assert losses[name] != losses["whole"]
    assert losses[name] == pytest.approx(losses["whole"], abs=0.1)
