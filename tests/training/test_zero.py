"""ZeRO on real ranks over gloo: whatever is cut or moved, it trains what DDP trains."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training_ranks import all_well, plan_file, run

from orchestrator.spec.strategy import Zero
from orchestrator.spec.training import Training
from orchestrator.training.engines.zero_config import refuse_wrong_pairs, zero_config
from orchestrator.training.engines.zero_import import check_compiler, import_deepspeed
from orchestrator.training.errors import NotSupported
from orchestrator.training.plan import TrainingPlan, load_plan

SCRIPT = Path(__file__).parent.parent / "support" / "zero_ranks.py"
# Faster, and these models amplify rounding from step to step; with less decay, a group of
# parameters that wrongly has none would go unseen.
OPTIMIZER = {"name": "adamw", "lr": 2e-3, "weight_decay": 1.0}
# Below every gradient's norm here, so that a wrong norm changes each step.
CLIP = 0.03
LLAMA = {"kind": "llama", "layers": 2}
TIED = LLAMA | {"tied": True}
LORA = LLAMA | {"lora": 4}

Case = dict[str, Any]


def ddp(model: Case | None = None, **training: Any) -> Case:
    """Global batches of 8 samples, in whatever way they are split."""
    common = {"micro_batch": 4, "optimizer": OPTIMIZER, "clip_grad_norm": CLIP}
    return {"training": common | training, "model": model or {}}


def zero(stage: int, model: Case | None = None, *, offload: str = "none", **training: Any) -> Case:
    strategy = {"name": "zero", "stage": stage, "offload": offload}
    return ddp(model, **training) | {"strategy": strategy}


SPLIT = {"micro_batch": 1, "accumulation": 4}
LOW = ("bf16-mixed", "fp16-mixed", "bf16")
# By the name of the case that they must equal.
EQUAL: dict[str, dict[str, Case]] = {
    "ddp": {
        "zero 1": zero(1),
        "zero 2": zero(2) | {"against": {"name": "zero", "stage": 3}},
        "zero 3": zero(3),
        "zero 1 accumulated": zero(1, **SPLIT),
        "zero 2 accumulated": zero(2, **SPLIT),
        "zero 3 accumulated": zero(3, **SPLIT),
        "zero 2, optimizer offloaded": zero(2, offload="optimizer", **SPLIT),
        "zero 3, optimizer offloaded": zero(3, offload="optimizer"),
        "zero 3, all offloaded": zero(3, offload="all", **SPLIT),
    },
    "unclipped": {"zero 2 unclipped": zero(2, clip_grad_norm=None)},
    "frozen": {"zero 3 frozen": zero(3, {"frozen": 3})},
    "llama": {
        "zero 1 llama": zero(1, LLAMA),
        "zero 3 llama": zero(3, LLAMA),
        "zero 3 from files": zero(3, LLAMA | {"made": "from files"}),
        "zero 3 recomputed": zero(3, LLAMA, activation_checkpointing={"mode": "full"}),
    },
    "tied": {"zero 2 tied": zero(2, TIED), "zero 3 tied": zero(3, TIED)},
    "lora": {
        "zero 3 lora": zero(3, LORA),
        "zero 3 lora on a base from files": zero(3, LORA | {"made": "from files"}),
    },
}
TWO = {
    "ddp": ddp(),
    "unclipped": ddp(clip_grad_norm=None),
    "frozen": ddp({"frozen": 3}),
    "llama": ddp(LLAMA),
    "tied": ddp(TIED),
    "lora": ddp(LORA),
    **{name: case for cases in EQUAL.values() for name, case in cases.items()},
    **{f"zero 1 {low}": zero(1, precision=low, **SPLIT) for low in LOW},
    **{f"zero 3 {low}": zero(3, precision=low, **SPLIT) for low in LOW},
    "zero 3 from config": zero(3, LLAMA | {"made": "from config"}),
    "zero 3 lora bf16-mixed": zero(3, LORA | {"made": "from files"}, precision="bf16-mixed"),
    "zero 3 lora bf16": zero(3, LORA | {"made": "from files"}, precision="bf16", lora={"rank": 4}),
}
PAIRS = [(base, name) for base, cases in EQUAL.items() for name in cases]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    results: dict[str, Case] = {}
    for world_size, cases in ((1, {"one process": ddp(micro_batch=8)}), (2, TWO)):
        folder = tmp_path_factory.mktemp("ranks")
        plan, out = plan_file(folder, world_size=world_size), folder / "found.pt"
        ranks = run(SCRIPT, str(out), json.dumps(cases), world_size=world_size, plan=plan)
        all_well(ranks)
        results |= torch.load(out)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL["ddp"])
def test_zero_trains_as_one_process_does(found: dict[str, Case], name: str) -> None:
    assert found[name]["losses"] == pytest.approx(found["one process"]["losses"], abs=1e-5)
    assert len(found[name]["losses"]) == 20


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), PAIRS)
def test_zero_trains_as_ddp_does(found: dict[str, Case], base: str, name: str) -> None:
    assert found[name]["losses"] == pytest.approx(found[base]["losses"], abs=1e-5)
    assert found[name]["heldout"] == pytest.approx(found[base]["heldout"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), PAIRS)
def test_the_gradient_norm_is_that_of_ddp(found: dict[str, Case], base: str, name: str) -> None:
    norms = found[base]["grad_norms"]
    if base == "unclipped":
        assert found[name]["grad_norms"] == norms == [None] * 20
        return
    assert found[name]["grad_norms"] == pytest.approx(norms, abs=1e-4)
    assert min(norms) > CLIP


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), PAIRS)
@pytest.mark.parametrize("when", ["before", "state"])
def test_every_weight_is_that_of_ddp(
    found: dict[str, Case], base: str, name: str, when: str
) -> None:
    wanted, got = found[base][when], found[name][when]
    assert list(got) == list(wanted)
    # Adam divides by the gradient's size, which makes more of what is rounding there.
    tolerance = 0 if when == "before" else 1e-4
    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=0)


@pytest.mark.slow
def test_frozen_parameters_stay_and_the_others_do_not(found: dict[str, Case]) -> None:
    before, after = found["zero 3 frozen"]["before"], found["zero 3 frozen"]["state"]
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert same == list(before)[:3]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("low", LOW)
def test_lower_precision_is_used_and_stays_close(
    found: dict[str, Case], stage: int, low: str
) -> None:
    case = found[f"zero {stage} {low}"]
    assert case["losses"] != pytest.approx(found["ddp"]["losses"], abs=5e-5)
    assert case["losses"] == pytest.approx(found["ddp"]["losses"], abs=0.1)
    kept = torch.bfloat16 if low == "bf16" else torch.float32
    assert {tensor.dtype for tensor in case["state"].values()} == {kept}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_adapters_beside_a_low_precision_base_keep_their_master_weights(
    found: dict[str, Case], precision: str
) -> None:
    case = found[f"zero 3 lora {precision}"]
    assert case["losses"] == pytest.approx(found["lora"]["losses"], abs=0.1)
    kinds = {"lora_" in name: tensor.dtype for name, tensor in case["state"].items()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}


@pytest.mark.slow
def test_random_weights_drawn_by_rank_0_alone_have_their_distribution(
    found: dict[str, Case],
) -> None:
    drawn, plain = found["zero 3 from config"]["before"], found["llama"]["before"]
    assert list(drawn) == list(plain)
    for name, tensor in drawn.items():
        assert tensor.shape == plain[name].shape
        # 0.02 for matrices of 1,024 elements and more, and norms are all ones.
        assert tensor.std().item() == pytest.approx(plain[name].std().item(), rel=0.15)
        assert tensor.mean().item() == pytest.approx(plain[name].mean().item(), abs=3e-3)
    losses = found["zero 3 from config"]["losses"]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero 3 from files", "zero 3 lora bf16-mixed"])
def test_buffers_that_no_file_holds_stay_exact(found: dict[str, Case], name: str) -> None:
    """Rotary frequencies: rounded to bf16, neighbouring positions would merge."""
    rotary = {
        key: [buffer for path, buffer in case["buffers"].items() if path.endswith("inv_freq")]
        for key, case in found.items()
    }
    assert len(rotary[name]) == 2  # transformers keeps a copy of the first ones
    torch.testing.assert_close(rotary[name], rotary["llama"], atol=0, rtol=0)


@pytest.mark.slow
def test_an_engine_says_what_is_cut_and_where(found: dict[str, Case]) -> None:
    assert "stage 3 over 2 ranks (14 of 14 parameters cut" in found["zero 3"]["described"]
    assert "stage 2 over 2 ranks (0 of 14 parameters cut" in found["zero 2"]["described"]


@pytest.mark.slow
def test_an_engine_that_is_not_the_planned_one_is_refused(found: dict[str, Case]) -> None:
    assert found["zero 2"]["mismatch"] == (
        "rank 0: the plan's ZeRO stage is 3, and DeepSpeed's is 2"
    )


def planned(strategy: dict[str, Any], **training: Any) -> TrainingPlan:
    return dataclasses.replace(
        load_plan({}, gpus=0),
        world_size=4,
        procs_per_node=2,
        strategy=Zero(name="zero", **strategy),
        training=Training.model_validate(training),
    )


@pytest.mark.parametrize(
    ("strategy", "training", "words"),
    [
        ({"tensor_parallel": 2}, {}, "tensor_parallel is 2"),
        ({"sequence_parallel": True}, {}, "sequence_parallel"),
        ({"stage": 2, "offload": "all"}, {}, "stage is 2"),
        ({"offload": "optimizer"}, {"precision": "bf16"}, "its own Adam"),
        ({"stage": 3}, {"lora": {"quantize": "4bit"}}, "quantize is 4bit"),
    ],
)
def test_a_wrong_pair_is_a_sentence(
    strategy: dict[str, Any], training: dict[str, Any], words: str
) -> None:
    with pytest.raises(NotSupported, match=words):
        refuse_wrong_pairs(planned(strategy, **training))


@pytest.mark.parametrize("offload", ["none", "optimizer", "all"])
def test_what_deepspeed_can_do_is_not_refused(offload: str) -> None:
    refuse_wrong_pairs(planned({"stage": 3, "offload": offload}, precision="bf16-mixed"))


def test_the_configuration_follows_a_changed_micro_batch() -> None:
    config = zero_config(planned({"stage": 3}, micro_batch=2, accumulation=8))
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 8
    assert config["train_batch_size"] == 2 * 8 * 4


def test_a_missing_compiler_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotSupported, match="no-such-compiler"):
        check_compiler()


@pytest.mark.slow
def test_fp16_on_a_cpu_without_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: False)
    with pytest.raises(NotSupported, match="no fp16 on this cpu"):
        import_deepspeed(planned({}, precision="fp16-mixed"))
