"""Low-rank adapters: what is trained, what is saved, and who can load it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.language import built, logits, moved, plan_with, saved

from orchestrator.errors import UserError
from orchestrator.spec.training import Lora
from orchestrator.training.language.adapters import quantization
from orchestrator.training.language.saved import load_saved

pytestmark = pytest.mark.slow

LORA = {"lora": {"rank": 4, "alpha": 8.0}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(built(), tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """That has been trained."""
    language = built(LORA, model=str(base))
    moved(language.objective.model)
    return saved(language, tmp_path / "adapter")


def peft_logits(base: Path, adapter: Path) -> torch.Tensor:
    """With nothing but transformers and peft."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    return logits(PeftModel.from_pretrained(model, str(adapter)))


def test_only_adapters_are_trained_and_they_change_nothing_at_first(base: Path) -> None:
    language = built(LORA, model=str(base))
    model = language.objective.model
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert language.trainable == sum(model.get_parameter(name).numel() for name in trained)
    plain = built(model=str(base)).objective.model
    assert torch.equal(logits(model), logits(plain))


def test_all_linear_means_every_layer_but_the_output(base: Path) -> None:
    names = dict(built(LORA, model=str(base)).objective.model.named_parameters())
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in names if "lora_" in name}
    attention, feed = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj"}
    assert adapted == attention | feed | {"down_proj"}


def test_named_targets_alone_get_an_adapter(base: Path) -> None:
    lora = {"lora": {"rank": 2, "target_modules": ["q_proj", "layers.1.mlp.up_proj"]}}
    names = dict(built(lora, model=str(base)).objective.model.named_parameters())
    adapted = {name for name in names if "lora_A" in name}
    assert len(adapted) == 3


def test_adapters_are_fp32_on_a_base_of_bf16(base: Path) -> None:
    model = built(LORA | {"precision": "bf16"}, model=str(base)).objective.model
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_an_adapter_loads_in_plain_peft_with_the_same_logits(base: Path, tmp_path: Path) -> None:
    language = built(LORA, model=str(base))
    moved(language.objective.model)
    folder = saved(language, tmp_path / "adapter")
    assert not (folder / "base").exists()
    trained = logits(language.objective.model)
    assert torch.allclose(peft_logits(base, folder), trained, atol=1e-6)
    assert not torch.allclose(logits(built(model=str(base)).objective.model), trained, atol=1e-2)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert config["inference_mode"]


def test_an_adapter_finds_its_base_by_itself_or_takes_the_one_that_is_named(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    expected = peft_logits(base, adapter)
    assert torch.allclose(logits(load_saved(str(adapter)).model), expected, atol=1e-5)
    moved_away = shutil.copytree(base, tmp_path / "elsewhere")
    named = load_saved(str(adapter), base=str(moved_away))
    assert torch.allclose(logits(named.model), expected, atol=1e-5)
    assert named.tokenizer.name == "bytes"


def test_a_base_made_here_is_saved_beside_its_adapter(tmp_path: Path) -> None:
    """It is nowhere else."""
    language = built(LORA)
    moved(language.objective.model)
    folder = saved(language, tmp_path / "adapter")
    trained = logits(language.objective.model)
    assert torch.allclose(peft_logits(folder / "base", folder), trained, atol=1e-6)
    assert torch.allclose(logits(load_saved(str(folder)).model), trained, atol=1e-5)


def test_an_adapter_is_trained_further(base: Path, adapter: Path) -> None:
    language = built(LORA, model=str(base), adapter=str(adapter), seed=5)
    model: Any = language.objective.model
    assert model.training
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())
    assert torch.allclose(logits(model), peft_logits(base, adapter), atol=1e-6)


def _other_rank(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 2}))


def _trained_head(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"modules_to_save": ["lm_head"]})
    )


def _trained_biases(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "all"}))


def _torn(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _without_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def _without_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[sorted(tensors)[0]]
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_other_rank, "has rank 2 and alpha 8.0, and training.lora says 4 and 8"),
        (_trained_head, "has modules_to_save in .* that would not be saved"),
        (_trained_biases, "has bias in .* that would not be saved"),
        (_torn, "cannot read .*adapter_model.safetensors"),
        (_without_config, "holds no adapter: it has no adapter_config.json"),
        (_without_a_tensor, "does not fit this model: it has no base_model"),
    ],
)
def test_an_adapter_that_cannot_be_continued_is_told_in_a_sentence(
    base: Path, adapter: Path, change: Any, sentence: str
) -> None:
    change(adapter)
    with pytest.raises(UserError, match=sentence):
        built(LORA, model=str(base), adapter=str(adapter))


def test_an_adapter_of_another_model_does_not_fit(adapter: Path, tmp_path: Path) -> None:
    deeper = saved(built(dim=64), tmp_path / "wider")
    with pytest.raises(UserError, match=r"does not fit this model: base_model.* is .* there and"):
        built(LORA, model=str(deeper), adapter=str(adapter))


@pytest.mark.parametrize("wrong", ["query", "act_fn"])
def test_targets_that_the_model_has_not_are_answered_with_those_that_it_has(wrong: str) -> None:
    with pytest.raises(UserError, match=r"training\.lora\.target_modules") as raised:
        built({"lora": {"target_modules": ["q_proj", wrong]}})
    assert "down_proj, gate_proj, k_proj" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("strategy", "gpus", "sentence"),
    [
        ({"name": "ddp"}, 0, "needs GPUs"),
        ({"name": "fsdp"}, 1, "keeps the whole base on every GPU"),
        ({"name": "zero", "stage": 3}, 1, "keeps the whole base on every GPU"),
        ({"name": "ddp", "tensor_parallel": 2}, 1, "keeps the whole base on every GPU"),
    ],
)
def test_a_quantized_base_is_refused_where_it_cannot_be(
    strategy: dict[str, Any], gpus: int, sentence: str
) -> None:
    plan = plan_with({}, strategy, gpus_per_node=gpus)
    with pytest.raises(UserError, match=sentence):
        quantization(Lora(quantize="4bit"), plan)


def test_a_quantized_base_without_bitsandbytes_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="needs the package bitsandbytes") as raised:
        quantization(Lora(quantize="8bit"), plan_with(gpus_per_node=1))
    assert "pip install bitsandbytes" in str(raised.value.hint)


def test_no_quantization_is_asked_for_by_default() -> None:
    assert quantization(Lora(), plan_with()) is None
