"""Image classifiers on real ranks: division changes no loss, and every sample is judged once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from support.training_ranks import CHECKOUT, plan_file, run

pytestmark = pytest.mark.slow

SCRIPT = CHECKOUT / "tests" / "support" / "classifier_ranks.py"
COMMON = {"optimizer": {"name": "adamw", "lr": 1e-2}, "clip_grad_norm": 1.0}
WHOLE = COMMON | {"micro_batch": 8}
HALF = COMMON | {"micro_batch": 4}
FSDP = {"name": "fsdp"}
Cases = dict[str, dict[str, Any]]
ONE: Cases = {
    "vit whole": {"model": "vit", "training": WHOLE},
    "vgg whole": {"model": "vgg", "training": WHOLE},
}
TWO: Cases = {
    "vit ddp": {"model": "vit", "training": HALF},
    "vit accumulated": {"model": "vit", "training": COMMON | {"micro_batch": 2, "accumulation": 2}},
    "vit fsdp": {"model": "vit", "training": HALF, "strategy": FSDP},
    "vit zero": {"model": "vit", "training": HALF, "strategy": {"name": "zero", "stage": 2}},
    "vgg ddp": {"model": "vgg", "training": HALF},
    "vgg fsdp": {"model": "vgg", "training": HALF, "strategy": FSDP},
    "vgg zero": {"model": "vgg", "training": HALF, "strategy": {"name": "zero", "stage": 1}},
    "vgg checkpointing": {
        "model": "vgg",
        "training": HALF | {"activation_checkpointing": {"mode": "full"}},
    },
    "vgg bf16": {"model": "vgg", "training": HALF | {"precision": "bf16"}},
    "vgg bf16-mixed fsdp": {
        "model": "vgg",
        "training": HALF | {"precision": "bf16-mixed"},
        "strategy": FSDP,
    },
    "vit bf16": {"model": "vit", "training": HALF | {"precision": "bf16"}},
}
LOWER = [name for name in TWO if "bf16" in name]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for world_size, cases in ((1, ONE), (2, TWO)):
        folder = tmp_path_factory.mktemp("ranks")
        plan, out = plan_file(folder, world_size=world_size), folder / "out.json"
        ranks = run(SCRIPT, str(out), json.dumps(cases), world_size=world_size, plan=plan)
        assert all(rank.code == 0 for rank in ranks), [rank.err[-3000:] for rank in ranks]
        results |= json.loads(out.read_text())
    return results


@pytest.mark.parametrize("name", [name for name in TWO if name not in LOWER])
def test_divided_among_ranks_training_is_that_of_one_process(
    found: dict[str, dict[str, Any]], name: str
) -> None:
    """Augmentation and batch normalisation included."""
    whole = found[f"{name.split()[0]} whole"]
    assert found[name]["losses"] == pytest.approx(whole["losses"], abs=1e-5)
    assert found[name]["eval_loss"] == pytest.approx(whole["eval_loss"], abs=1e-4)


def test_running_statistics_are_those_of_all_ranks(found: dict[str, dict[str, Any]]) -> None:
    whole = found["vgg whole"]["statistics"]
    for name in ("vgg ddp", "vgg fsdp", "vgg zero", "vgg checkpointing"):
        assert found[name]["statistics"] == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("name", LOWER)
def test_lower_precision_is_used_and_stays_close(
    found: dict[str, dict[str, Any]], name: str
) -> None:
    whole = found[f"{name.split()[0]} whole"]["losses"]
    assert found[name]["losses"] != pytest.approx(whole, abs=1e-5)
    assert found[name]["losses"] == pytest.approx(whole, abs=0.25)


@pytest.mark.parametrize("name", ["vit whole", "vit ddp", "vit fsdp", "vgg fsdp"])
def test_each_sample_is_judged_once_and_scored_as_scikit_learn_does(
    found: dict[str, dict[str, Any]], name: str
) -> None:
    case = found[name]
    truth, guess = case["targets"], case["predicted"]
    assert len(truth) == len(guess) == 37
    assert case["confusion"] == confusion_matrix(truth, guess, labels=range(10)).tolist()
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, guess, labels=range(10), zero_division=0
    )
    assert case["precision"] == pytest.approx(list(precision))
    assert case["recall"] == pytest.approx(list(recall))
    assert case["f1"] == pytest.approx(list(f1))
    assert case["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert case["accuracy"] == sum(a == b for a, b in zip(truth, guess, strict=True)) / 37
