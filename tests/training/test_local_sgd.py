"""Post-local SGD (Lin et al. 2018) in real ranks."""

from __future__ import annotations

from typing import Any

import pytest
from support.looped import Found, through_loop

pytestmark = pytest.mark.slow

SGD: dict[str, Any] = {
    "micro_batch": 4,
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
}
ADAM: dict[str, Any] = {"micro_batch": 4, "optimizer": {"name": "adamw", "lr": 1e-2}}


def _local(**local: int) -> dict[str, Any]:
    return {"local_sgd": local}


CASES: dict[str, dict[str, Any]] = {
    "ddp": {"training": SGD, "steps": 6},
    "every step": {"training": SGD | _local(interval=1), "steps": 6},
    "every fourth": {"training": SGD | _local(interval=4), "steps": 9},
    "after warm-up": {"training": ADAM | _local(interval=2, warmup_steps=3), "steps": 7},
    "clipped": {"training": SGD | _local(interval=2) | {"clip_grad_norm": 0.1}, "steps": 3},
    "evaluated": {
        "training": SGD | _local(interval=4) | {"evaluation": {"every_steps": 2}},
        "steps": 4,
        "evaluation": "heldout",
        "batches": 2,
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return through_loop(tmp_path_factory.mktemp("ranks"), CASES, world_size=2)


def _apart(ranks: Found) -> list[bool]:
    return [spread > 1e-6 for spread in ranks[0]["spread"]]


def test_averaging_at_every_step_with_sgd_is_ddp(found: dict[str, Found]) -> None:
    ddp, local = found["ddp"][0], found["every step"][0]
    assert [r["loss"] for r in local["records"]] == pytest.approx(
        [r["loss"] for r in ddp["records"]], abs=1e-5
    )
    assert local["weights"] == pytest.approx(ddp["weights"], abs=1e-4)
    assert not any(_apart(found["every step"]))


def test_ranks_agree_at_every_fourth_step_and_nowhere_else(found: dict[str, Found]) -> None:
    apart, same = True, False
    expected = [apart, apart, apart, same] * 2 + [apart]
    assert _apart(found["every fourth"]) == expected


def test_gradients_are_averaged_during_the_warm_up(found: dict[str, Found]) -> None:
    assert _apart(found["after warm-up"]) == [False, False, False, True, False, True, False]


@pytest.mark.parametrize("name", ["every fourth", "clipped"])
def test_after_the_last_step_all_ranks_hold_one_model(found: dict[str, Found], name: str) -> None:
    first, second = found[name]
    assert first["spread"][-1] > 1e-6
    assert first["weights"] == second["weights"]


def test_an_evaluation_is_one_of_the_averaged_model(found: dict[str, Found]) -> None:
    first, second = found["evaluated"]
    assert _apart(found["evaluated"]) == [True, True, True, False]
    assert first["eval_loss"] == second["eval_loss"]
    # Averaged after step 2 as well, or step 3 would have gone on from there.
    assert first["weights"] == second["weights"]


@pytest.mark.parametrize("name", ["every step", "every fourth", "after warm-up"])
def test_the_loss_falls(found: dict[str, Found], name: str) -> None:
    losses = [record["loss"] for record in found[name][0]["records"]]
    assert min(losses[-2:]) < losses[0]
