"""jobs/train_lm.py and its library under every strategy: what is saved is what was trained."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support import lm_ranks
from support.language import built, saved
from support.training_ranks import TINY, TRAIN_LM, Ended, all_well, plan_file, run

from orchestrator.training.language.saved import load_saved
from orchestrator.training.language.windows import Windows

pytestmark = pytest.mark.slow

LORA = {"lora": {"rank": 4, "alpha": 8.0}}
DELTA = {"trainable": ["model.layers.1.*", "lm_head.*"]}
ZERO3 = {"name": "zero", "stage": 3}
CASES: dict[str, dict[str, Any]] = {
    "ddp bytes": {"settings": {"model": "bytes"}},
    "ddp delta": {"settings": {"model": "BASE"}, "training": DELTA},
    "fsdp tied": {"settings": {"tied": True}, "strategy": {"name": "fsdp"}},
    "fsdp adapter": {"settings": {"model": "BASE"}, "training": LORA, "strategy": {"name": "fsdp"}},
    "fsdp delta": {"settings": {"model": "BASE"}, "training": DELTA, "strategy": {"name": "fsdp"}},
    "zero 2 whole": {"settings": {"model": "BASE"}, "strategy": {"name": "zero", "stage": 2}},
    "zero 3 whole": {"settings": {"model": "BASE"}, "strategy": ZERO3},
    "zero 3 made here": {"settings": {"tied": True}, "strategy": ZERO3},
    "zero 3 adapter": {"settings": {"model": "BASE"}, "training": LORA, "strategy": ZERO3},
    "zero 3 delta": {"settings": {"model": "BASE"}, "training": DELTA, "strategy": ZERO3},
    "zero 3 adapter made here": {"training": LORA, "strategy": ZERO3},
    "tensor parallel whole": {
        "settings": {"model": "BASE"},
        "training": {"accumulation": 2},
        "strategy": {"name": "ddp", "tensor_parallel": 2},
    },
    "tensor parallel tied": {
        "settings": {"tied": True},
        "strategy": {"name": "ddp", "tensor_parallel": 2},
    },
    "ddp adapter bf16": {
        "settings": {"model": "BASE"},
        "training": LORA | {"precision": "bf16"},
    },
    "fsdp adapter bf16": {
        "settings": {"model": "BASE"},
        "training": LORA | {"precision": "bf16"},
        "strategy": {"name": "fsdp"},
    },
    "pipeline whole": {
        "settings": {"model": "BASE"},
        "training": {"accumulation": 2},
        "strategy": {"name": "ddp", "pipeline_parallel": 2},
    },
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(built(), tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def exported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case trained on two ranks, in one launch."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = json.dumps(CASES).replace("BASE", str(base))
    plan = plan_file(folder, world_size=2)
    ranks = run(Path(lm_ranks.__file__), str(folder), cases, world_size=2, plan=plan)
    all_well(ranks)
    return folder


def heldout() -> Windows:
    text = torch.tensor(list(Path(lm_ranks.__file__).read_bytes()), dtype=torch.uint8)
    return Windows(text[1000:1300], 32)


def heldout_loss(folder: Path) -> float:
    """Of a saved model, on one process, read by whoever reads it."""
    windows = heldout()
    batch = windows.take(range(len(windows)))
    model = load_saved(str(folder)).model
    with torch.no_grad():
        found = model(batch.inputs["tokens"])
    logits = found if isinstance(found, torch.Tensor) else found.logits
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).item()


@pytest.mark.parametrize("name", CASES)
def test_a_saved_model_has_the_heldout_loss_of_the_trained_one(exported: Path, name: str) -> None:
    trained = json.loads((exported / "heldout.json").read_text())[name]
    rounding = 2e-3 if "bf16" in name else 1e-5  # it is read back in fp32
    assert heldout_loss(exported / name) == pytest.approx(trained, abs=rounding)


@pytest.mark.parametrize("name", ["zero 3 adapter", "fsdp adapter"])
def test_plain_peft_gives_the_logits_that_the_ranks_had(
    base: Path, exported: Path, name: str
) -> None:
    """With nothing but transformers and peft."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    tokens = heldout().take([0]).inputs["tokens"]
    trained = torch.load(exported / f"{name}.logits", weights_only=True)
    with torch.no_grad():
        untrained = model(tokens).logits
        found = PeftModel.from_pretrained(model, str(exported / name))(tokens).logits
    torch.testing.assert_close(found, trained, rtol=1e-5, atol=1e-5)
    assert (found - untrained).abs().max() > 0.01


def test_the_forms_are_the_ones_that_others_read(exported: Path) -> None:
    for name in CASES:
        files = {path.name for path in (exported / name).iterdir()}
        if "adapter" in name:
            assert {"adapter_config.json", "adapter_model.safetensors"} <= files
        elif "delta" in name:
            assert {"delta.json", "delta.safetensors"} <= files
        elif "bytes" not in name:
            assert {"config.json", "model.safetensors", "generation_config.json"} <= files


def test_every_strategy_trains_the_same_model(exported: Path) -> None:
    losses = json.loads((exported / "heldout.json").read_text())
    for kind in ("whole", "adapter", "delta"):
        same = [losses[name] for name in CASES if name.endswith(kind)]
        assert len(same) > 1
        assert same == pytest.approx([same[0]] * len(same), abs=1e-5)
    assert len({round(losses[f"zero 3 {kind}"], 3) for kind in ("whole", "adapter", "delta")}) == 3


@pytest.mark.parametrize("name", ["ddp adapter bf16", "fsdp adapter bf16"])
def test_adapters_are_trained_and_kept_in_fp32_on_a_base_of_bf16(exported: Path, name: str) -> None:
    tensors = load_file(exported / name / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert any((tensor != tensor.bfloat16()).any() for tensor in tensors.values())


# The script itself


def trained(folder: Path, *args: str, world_size: int = 1, **plan: Any) -> list[Ended]:
    data = folder / "text.txt"
    data.write_bytes(b"the quick brown fox jumps over the lazy dog\n" * 200)
    path = plan_file(folder, world_size=world_size, **plan)
    return run(TRAIN_LM, *TINY, f"--data={data}", *args, world_size=world_size, plan=path)


def test_a_run_says_what_it_is_and_what_to_do_next(tmp_path: Path) -> None:
    (rank,) = trained(tmp_path, "--epochs=0.02", training={"accumulation": 2}, global_batch=16)
    assert rank.code == 0, rank.err
    data, model, step, *_ = rank.out.splitlines()
    assert data == f"data: 8,800 bytes, {tmp_path / 'text.txt'}"
    assert re.match(r"model: [\d,]+ parameters, [\d,]+ of them trained, made here, ddp over", model)
    assert "16 samples = micro batch 8 x accumulation 2 x 1 data ranks, 256 bytes" in step
    assert "step 1/1" in rank.out  # 0.02 of 522 windows, 16 at a time
    folder = tmp_path / "run" / "model"
    assert f"the model: {folder}" in rank.out
    assert re.search(rf"next: python \S+/sample_lm\.py --model={folder}\n", rank.out)


def test_training_that_gets_no_better_stops_and_keeps_its_model(tmp_path: Path) -> None:
    settings = {
        "optimizer": {"name": "sgd", "lr": 1e-9},
        "evaluation": {"every_steps": 2, "patience": 2, "min_delta": 0.1, "batches": 1},
    }
    (rank,) = trained(tmp_path, "--steps=50", training=settings)
    assert rank.code == 0, rank.err
    assert "stopped at step 6: the held-out loss got no better" in rank.out
    assert load_saved(str(tmp_path / "run" / "model")).kind == "built-in model"


def test_without_a_run_folder_the_model_is_kept_where_it_is_told_to(tmp_path: Path) -> None:
    data = tmp_path / "text.txt"
    data.write_bytes(b"hello world, again and again\n" * 200)
    out = tmp_path / "mine"
    (rank,) = run(TRAIN_LM, *TINY, f"--data={data}", "--steps=1", f"--output={out}", world_size=1)
    assert rank.code == 0, rank.err
    assert load_saved(str(out)).tokenizer.name == "bytes"


def test_one_rank_without_its_model_ends_all_with_its_sentence(tmp_path: Path) -> None:
    """As where a folder is not on every node."""
    ranks = trained(tmp_path, "--model=/nowhere/model", world_size=2)
    for rank in ranks:
        assert rank.code == 2
        assert "rank 0: there is no model folder /nowhere/model" in rank.err
        assert len(rank.err.splitlines()) == 1


@pytest.mark.parametrize("strategy", [{"name": "fsdp"}, ZERO3])
def test_weights_of_another_model_end_all_ranks_with_one_sentence(
    base: Path, tmp_path: Path, strategy: dict[str, Any]
) -> None:
    """Rank 0 alone finds it out, in the midst of what the ranks do together."""
    wrong = shutil.copytree(base, tmp_path / "wrong")
    config = json.loads((base / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    ranks = trained(tmp_path, f"--model={wrong}", world_size=2, strategy=strategy)
    for rank in ranks:
        assert rank.code == 2
        assert f"rank 0: the weights of {wrong} do not fit its config.json" in rank.err
        assert "Traceback" not in rank.err
