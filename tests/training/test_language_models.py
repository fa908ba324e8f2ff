"""Language models: what is built, what is refused in one sentence, and what is left on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.language import ALONE, BYTES, TOKENS, built, logits, moved, plan_with, saved, settings
from support.training_ranks import CHECKOUT

from orchestrator.errors import UserError
from orchestrator.training.language import forms
from orchestrator.training.language.byte_model import ByteTransformer
from orchestrator.training.language.export import export
from orchestrator.training.language.forms import Form, State, tensor_names
from orchestrator.training.language.generation import (
    Cached,
    Sampler,
    continued,
    nucleus,
    printable,
    sampled_text,
)
from orchestrator.training.language.models import build_language_model
from orchestrator.training.language.partial import load_delta
from orchestrator.training.language.saved import load_saved
from orchestrator.training.output import output_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(built(), tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """Of the base, to be broken."""
    return shutil.copytree(base, tmp_path / "copy")


def test_a_llama_is_made_from_its_dimensions() -> None:
    config: Any = built(dim=48, hidden=80, heads=6, kv_heads=3, tied=True).objective.model.config
    assert config.model_type == "llama"
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (48, 80, 2)
    assert (config.num_attention_heads, config.num_key_value_heads) == (6, 3)
    assert config.tie_word_embeddings
    assert config.vocab_size % 64 == 0
    assert config.vocab_size >= BYTES.vocabulary
    assert config.eos_token_id == BYTES.end


def test_parameters_are_counted_once_where_they_are_tied() -> None:
    tied, untied = built(tied=True), built(tied=False)
    output = untied.objective.model.get_parameter("lm_head.weight").numel()
    assert untied.parameters - tied.parameters == output
    assert tied.parameters == tied.trainable


def test_a_folder_is_loaded_with_its_own_weights(base: Path) -> None:
    assert torch.equal(logits(built(model=str(base), seed=7).objective.model), logits(made()))


def made() -> torch.nn.Module:
    return built().objective.model


def test_a_folder_without_weights_is_trained_from_scratch_and_that_is_said(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    language = built(model=str(copy), seed=7)
    assert "no weights, so it is trained from scratch" in str(language)
    assert not torch.equal(logits(language.objective.model), logits(made()))


def test_bf16_loads_bf16_and_mixed_precision_keeps_fp32(base: Path) -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("bf16-mixed", torch.float32)):
        language = built({"precision": precision}, model=str(base))
        assert {p.dtype for p in language.objective.parameters()} == {dtype}


def test_whatever_it_was_loaded_from_a_model_is_in_training_mode(base: Path) -> None:
    assert built(model=str(base)).objective.model.training


def _without_norm(tensors: State) -> None:
    del tensors["model.norm.weight"]


def _narrow_head(tensors: State) -> None:
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :16].contiguous()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without_norm, "lack model.norm.weight"),
        (_narrow_head, r"lm_head.weight is \(320, 16\) in the file and \(320, 32\)"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_never_made_up(
    copy: Path, change: Any, sentence: str
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=sentence):
        built(model=str(copy))


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("model.safetensors", b"\0" * 30, "cannot read the weights"),
        ("model.safetensors", None, "cannot read the weights"),  # cut in the middle
        ("config.json", b"{", "cannot load the model"),
        ("config.json", b'{"model_type": "nonsense"}', "nonsense"),
        ("config.json", b'{"model_type": "vit"}', "no language model: its type is vit"),
    ],
)
def test_torn_and_foreign_files_are_told_in_a_sentence(
    copy: Path, file: str, content: bytes | None, sentence: str
) -> None:
    (copy / file).write_bytes((copy / file).read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match=sentence) as raised:
        built(model=str(copy))
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("training", "changed", "sentence"),
    [
        ({}, {"model": "/nowhere/model"}, "there is no model folder /nowhere/model"),
        ({}, {"model": str(CHECKOUT)}, "holds no model: it has no config.json"),
        ({}, {"dim": 30}, "30 does not divide into 4 heads"),
        ({}, {"model": "bytes", "dim": 30}, "30 does not divide into 4 heads"),
        ({}, {"kv_heads": 3}, "4 attention heads cannot share 3 key-value heads"),
        ({}, {"adapter": "/some/adapter"}, "the spec has no training.lora"),
        ({"lora": {}}, {"model": "bytes"}, "models of transformers"),
        ({"trainable": ["*norms*"]}, {}, r"no parameter of the model fits '\*norms\*'"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(
    training: dict[str, Any], changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        built(training, **changed)


def test_a_tokenizer_or_context_too_large_for_the_model_is_refused(copy: Path) -> None:
    with pytest.raises(UserError, match=r"context is 64 and the model .* reads 32 tokens"):
        built(model=str(copy), context=64)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 257}))
    with pytest.raises(UserError, match=r"tokenizer bytes has 258 tokens and the model .* 257"):
        built(model=str(copy))


def test_packed_samples_are_refused_for_a_model_that_would_read_across_documents(
    tmp_path: Path,
) -> None:
    from transformers import OPTConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "ffn_dim": 32}
    config: Any = OPTConfig(vocab_size=320, word_embed_proj_dim=32, **sizes)
    config.save_pretrained(tmp_path)
    chosen = settings(model=str(tmp_path))
    build_language_model(chosen, plan_with(), ALONE, BYTES, packed=False)
    with pytest.raises(UserError, match="of type opt, is not known to keep them apart"):
        build_language_model(chosen, plan_with(), ALONE, BYTES, packed=True)


def test_a_hub_name_that_is_not_in_the_cache_is_not_looked_for_when_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="some-owner/some-model is not in the cache") as raised:
        built(model="some-owner/some-model")
    assert "HF_HOME" in str(raised.value.hint)


# What is left on disk


@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_model_loads_in_plain_transformers_with_the_same_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(forms, "MAX_SHARD", "60KB")
    language = built(tied=tied)
    moved(language.objective.model)
    folder = saved(language, tmp_path / "model")
    stored: list[str] = []
    shards = sorted(folder.glob("*.safetensors"))
    for shard in shards:
        with safe_open(shard, "pt") as file:
            stored += file.keys()
    assert len(shards) > 1
    assert len(stored) == len(set(stored))
    assert ("lm_head.weight" in stored) != tied
    loaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(logits(loaded), logits(language.objective.model))
    assert loaded.generation_config.eos_token_id == BYTES.end


def test_a_model_of_another_precision_is_said_to_be_of_it(tmp_path: Path) -> None:
    folder = saved(built({"precision": "bf16"}), tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_built_in_model_is_read_back_as_it_was(tmp_path: Path) -> None:
    language = built(model="bytes")
    moved(language.objective.model)
    read = load_saved(str(saved(language, tmp_path / "model")))
    assert isinstance(read.model, ByteTransformer)
    assert read.tokenizer.name == "bytes"
    assert torch.equal(logits(read.model), logits(language.objective.model))


def test_trained_parameters_alone_are_kept_and_put_over_their_base(
    base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    language = built({"trainable": ["*layers.1.*norm*", "lm_head.*"]}, model=str(base))
    trained = {name for name, p in language.objective.model.named_parameters() if p.requires_grad}
    norms = {f"model.layers.1.{name}_layernorm.weight" for name in ("input", "post_attention")}
    assert trained == {"lm_head.weight", *norms}
    moved(language.objective.model)
    folder = saved(language, tmp_path / "delta", step=17)
    assert load_file(folder / "delta.safetensors").keys() == trained
    description = json.loads((folder / "delta.json").read_text())
    assert (description["version"], description["step"]) == (1, 17)
    assert description["base_model"] == str(base)
    assert description["trainable"] == ["*layers.1.*norm*", "lm_head.*"]
    read = load_saved(str(folder)).model
    assert torch.equal(logits(read), logits(language.objective.model))
    assert not torch.equal(logits(read), logits(built(model=str(base)).objective.model))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"layers": 1}, "does not belong to this model, which has no model.layers.1"),
        ({"dim": 16}, r"whose lm_head.weight is \(320, 16\) and not \(320, 32\)"),
    ],
)
def test_a_delta_over_another_base_is_refused_and_changes_nothing(
    base: Path, tmp_path: Path, other: dict[str, Any], sentence: str
) -> None:
    language = built({"trainable": ["lm_head.*", "model.layers.1.*"]}, model=str(base))
    folder = saved(language, tmp_path / "delta")
    wrong = built(**other).objective.model
    before = logits(wrong)
    with pytest.raises(UserError, match=sentence) as raised:
        load_delta(wrong, folder)
    assert str(base) in str(raised.value.hint)
    assert torch.equal(logits(wrong), before)


def test_a_model_made_here_is_saved_whole_even_where_parts_were_frozen(tmp_path: Path) -> None:
    """Nobody else has the frozen rest."""
    folder = saved(built({"trainable": ["lm_head.*"]}), tmp_path / "model")
    assert (folder / "config.json").is_file()
    assert not (folder / "delta.json").exists()


class Broken(Form):
    what = "the model"
    names = frozenset({"x"})

    def describe(self, folder: Path) -> dict[str, Any]:
        raise NotImplementedError

    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:
        (folder / "half").write_text("written")
        raise OSError(28, "No space left on device")


def test_an_export_that_fails_leaves_the_old_model_and_nothing_else(tmp_path: Path) -> None:
    folder = saved(built(), tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"cannot write the model to .*No space left"):
        export(Broken(), {"x": torch.ones(1)}, folder, tokenizer=BYTES, step=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_replaces_the_old_model_as_a_whole(tmp_path: Path) -> None:
    folder = saved(built(), tmp_path / "model")
    saved(built(model="bytes"), folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"byte_model.json", "model.safetensors", "ptx_tokenizer.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_holds_no_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds no saved model, so it is not replaced"):
        output_folder(str(tmp_path), plan_with())


def test_the_output_is_the_runs_own_folder_unless_one_is_named(tmp_path: Path) -> None:
    plan = plan_with(run_dir=tmp_path)
    assert output_folder(None, plan) == tmp_path / "model"
    assert output_folder(str(tmp_path / "mine"), plan) == tmp_path / "mine"
    assert output_folder(None, plan_with()) is None


@pytest.mark.parametrize("spoilt", [{}, {"model.norm.weight": torch.empty(0)}])
def test_a_shard_in_place_of_a_tensor_is_never_written(tmp_path: Path, spoilt: State) -> None:
    language = built()
    state = dict(language.objective.model.state_dict())
    del state["model.norm.weight"]
    with pytest.raises(RuntimeError, match=r"gathered"):
        export(language.form, state | spoilt, tmp_path / "model", tokenizer=BYTES, step=1)
    assert not (tmp_path / "model").exists()


def test_tied_names_and_unsaved_buffers_are_no_tensors_to_save() -> None:
    names = tensor_names(built(tied=True).objective.model)
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert not any("inv_freq" in name for name in names)


# Text


@pytest.mark.parametrize("model", ["bytes", "llama"])
def test_text_repeats_with_its_seed_and_goes_on_beyond_the_context(model: str) -> None:
    module = built(model=model, context=16).objective.model
    first, again, other = (sampled_text(module, BYTES, "def ", 60, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.startswith("def ")
    assert len(continued(module, [100], 60, sampler=Sampler(), seed=0)) == 60
    assert module.training


def test_kept_keys_and_values_give_the_tokens_of_reading_all_anew() -> None:
    model: Any = moved(built().objective.model)
    tokens = [100, 101]
    kept = continued(model, tokens, 20, sampler=Sampler(temperature=0), seed=0)
    model.eval()
    for _ in range(20):
        with torch.no_grad():
            tokens.append(int(Cached(model).logits(torch.tensor([tokens])).argmax()))
    assert kept == tokens[2:]
    assert len(set(kept)) > 1


def test_text_ends_where_the_model_says_so() -> None:
    model: Any = built().objective.model
    likeliest = continued(model, [100], 1, sampler=Sampler(temperature=0), seed=0)[0]
    assert not continued(model, [100], 5, sampler=Sampler(temperature=0), seed=0, end=likeliest)


def test_a_nucleus_is_the_likeliest_tokens_that_reach_the_share() -> None:
    chances = torch.tensor([0.1, 0.5, 0.15, 0.25])
    assert nucleus(chances, 0.6).tolist() == pytest.approx([0, 0.5, 0, 0.25])
    assert nucleus(chances, 0.01).tolist() == pytest.approx([0, 0.5, 0, 0])
    assert nucleus(chances, 1.0).tolist() == pytest.approx(chances.tolist())


def test_nothing_that_could_drive_a_terminal_is_shown() -> None:
    assert printable("a\x1b[31mb\r\x07\u202e\n\tc") == "a\ufffd[31mb\ufffd\ufffd\ufffd\n\tc"


def test_packed_documents_of_the_built_in_model_do_not_see_each_other() -> None:
    model: Any = built(model="bytes").objective.model.eval()
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    packed = model(TOKENS[:1], positions)
    assert torch.allclose(packed[:, :5], model(TOKENS[:1, :5]), atol=1e-5)
    assert torch.allclose(packed[:, 5:], model(TOKENS[:1, 5:]), atol=1e-5)
