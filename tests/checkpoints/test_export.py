"""A checkpoint becomes the very model that training would have left."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.language import ALONE, BYTES, TOKENS, built, logits, moved, plan_with, saved
from torch import nn

from orchestrator.checkpoints.commit import begin, commit, remove
from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest
from orchestrator.checkpoints.names import step_folder
from orchestrator.checkpoints.regions import Span
from orchestrator.checkpoints.verify import DeletedCheckpoint
from orchestrator.errors import UserError
from orchestrator.training.checkpoint import export as exporting
from orchestrator.training.checkpoint.description import describe_model
from orchestrator.training.checkpoint.export import export
from orchestrator.training.checkpoint.files import Copied, write_rank_file
from orchestrator.training.language.models import LanguageModel
from orchestrator.training.language.saved import load_saved
from orchestrator.training.language.saved_tokenizer import save_tokenizer
from orchestrator.training.vision.vgg import Vgg, VggShape
from orchestrator.training.vision.vgg_form import VggForm, load_vgg

pytestmark = pytest.mark.slow

LORA = {"lora": {"rank": 4, "alpha": 8.0}}
STEP = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(built(), tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-aaaaaa"
    folder.mkdir()
    return folder


def checkpoint_of(run: Path, model: nn.Module, attempt: int = 0) -> Path:
    """Of a whole model, as two ranks would save it: what is trained, and buffers."""
    folder = step_folder(run / "checkpoints", STEP, attempt)
    begin(folder)
    kept = {
        name: tensor.detach()
        for name, tensor in model.state_dict(keep_vars=True).items()
        if not isinstance(tensor, nn.Parameter) or tensor.requires_grad
    }
    files = []
    for rank in range(2):
        parts = []
        for name, tensor in kept.items():
            count, flat = tensor.numel(), tensor.contiguous().reshape(-1)
            start, stop = count * rank // 2, count * (rank + 1) // 2
            if start < stop:
                region = Span(start, stop)
                shape = tuple(tensor.shape)
                parts.append(Copied(f"model/{name}", shape, region, flat[start:stop].clone()))
        files.append(write_rank_file(folder.path, rank, parts, {}, 0o600))
    manifest = Manifest(run.name, STEP, attempt, 1.0, 2, {"name": "ddp"}, {}, tuple(files), {})
    commit(folder.path, manifest, run / "attempts")
    return folder.path


def described(run: Path, language: LanguageModel, attempt: int = 0) -> Path:
    """Model description and, after some training, checkpoint."""
    plan = dataclasses.replace(plan_with(), run_dir=run, attempt=attempt)
    describe_model(language.form, plan, ALONE, beside=partial(save_tokenizer, BYTES))
    return checkpoint_of(run, moved(language.objective.model), attempt)


def same_files(ours: Path, theirs: Path) -> None:
    """Of two saved models, tensors bit by bit."""
    names = {str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file()}
    assert {str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file()} == names
    for name in names:
        if name.endswith(".safetensors"):
            left, right = load_file(ours / name), load_file(theirs / name)
            assert left.keys() == right.keys()
            assert all(left[key].dtype == right[key].dtype for key in left)
            assert all(torch.equal(left[key], right[key]) for key in left)
        elif name.endswith(".json"):
            assert facts(ours / name) == facts(theirs / name)


def facts(path: Path) -> Any:
    """peft writes what was a set in any order."""
    found = json.loads(path.read_text())
    if isinstance(found.get("target_modules"), list):
        found["target_modules"].sort()
    return found


@pytest.mark.parametrize("kind", ["bytes", "llama", "tied llama", "lora", "trainable"])
def test_what_is_exported_is_what_training_would_have_left(
    kind: str, base: Path, run: Path, tmp_path: Path
) -> None:
    language = {
        "bytes": lambda: built(model="bytes"),
        "llama": lambda: built(model=str(base)),
        "tied llama": lambda: built(tied=True),
        "lora": lambda: built(LORA, model=str(base)),
        "trainable": lambda: built({"trainable": ["*mlp*"]}, model=str(base)),
    }[kind]()
    checkpoint = described(run, language)

    told = export(run, checkpoint, tmp_path / "out", merged=False)

    theirs = saved(language, tmp_path / "theirs", step=STEP)
    same_files(tmp_path / "out", theirs)
    assert (told["what"], told["note"]) == (language.form.what, None)
    read = load_saved(str(tmp_path / "out")).model
    assert torch.equal(logits(read), logits(load_saved(str(theirs)).model))


def test_what_an_attempt_with_another_model_left_is_exported_as_that_model(
    run: Path, tmp_path: Path
) -> None:
    small = built(model="bytes", layers=1)
    first = described(run, small)
    described(run, built(model="bytes", layers=1), attempt=1)  # the same once more
    second = described(run, built(model="bytes", layers=2), attempt=2)
    assert sorted(path.name for path in run.glob("model-*")) == [
        "model-description.000",
        "model-description.002",
    ]
    for checkpoint, layers in ((first, 1), (run / "checkpoints" / second.name, 2)):
        out = tmp_path / str(layers)
        export(run, checkpoint, out, merged=False)
        assert json.loads((out / "byte_model.json").read_text())["layers"] == layers
    same_files(tmp_path / "1", saved(small, tmp_path / "theirs", step=STEP))


@pytest.mark.parametrize("training", [LORA, {"trainable": ["*mlp*"]}], ids=["lora", "trainable"])
def test_a_merged_model_needs_neither_base_nor_peft(
    training: dict[str, Any], base: Path, run: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    language = built(training, model=str(base))
    checkpoint = described(run, language)

    export(run, checkpoint, tmp_path / "out", merged=True)

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    model = language.objective.model.eval()
    assert not hasattr(merged, "peft_config")
    with torch.no_grad():
        assert torch.allclose(merged(TOKENS).logits, model(TOKENS).logits, atol=1e-5)
    assert not torch.allclose(logits(merged), logits(built(model=str(base)).objective.model))
    assert (tmp_path / "out" / "ptx_tokenizer.json").is_file()


def test_a_vgg_is_exported_with_what_lies_beside_it(run: Path, tmp_path: Path) -> None:
    shape = VggShape(3, 2, 32, width=4, hidden=8, depths=(1, 1))
    model = Vgg(shape)
    plan = dataclasses.replace(plan_with(), run_dir=run)
    form = VggForm(model, shape, ["cat", "dog"])
    describe_model(form, plan, ALONE, beside=lambda folder: (folder / "x.json").touch())
    checkpoint = checkpoint_of(run, moved(model))

    export(run, checkpoint, tmp_path / "out", merged=False)

    read = load_vgg(tmp_path / "out").state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())
    assert (tmp_path / "out" / "x.json").is_file()


def test_an_adapter_over_a_base_that_the_run_has_made_says_so(run: Path, tmp_path: Path) -> None:
    language = built(LORA)
    checkpoint = described(run, language)

    told = export(run, checkpoint, tmp_path / "out", merged=False)
    assert "made by the run itself" in told["note"]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    with pytest.raises(UserError, match="made by the run itself"):
        export(run, checkpoint, tmp_path / "merged", merged=True)

    saved(language, run / "model", step=STEP)
    told = export(run, checkpoint, tmp_path / "merged", merged=True)
    assert told["note"] is None
    whole = load_saved(str(run / "model")).model
    assert torch.allclose(logits(load_saved(str(tmp_path / "merged")).model), logits(whole))


@pytest.mark.parametrize("look", ["read_manifest", "refuse_damage", "_tensor"])
def test_of_a_run_that_deletes_while_it_is_read_the_newest_is_taken_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """At whichever look it is gone."""
    language = built(model="bytes")
    described(run, language)
    looks = getattr(exporting, look)

    def prunes_meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(exporting, look, looks)
        folder = step_folder(run / "checkpoints", STEP, 0)
        checkpoint_of(run, moved(language.objective.model), attempt=1)
        remove(folder)
        return looks(*args)

    monkeypatch.setattr(exporting, look, prunes_meanwhile)
    told = exporting.export_chosen(run, tmp_path / "out", None, merged=False)
    assert (told["step"], told["attempt"]) == (STEP, 1)
    same_files(tmp_path / "out", saved(language, tmp_path / "theirs", step=STEP))


def test_of_a_step_that_was_asked_for_it_says_that_the_run_has_deleted_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = described(run, built(model="bytes"))
    reads = exporting.read_manifest

    def prunes_meanwhile(folder: Path) -> Manifest:
        remove(step_folder(run / "checkpoints", STEP, 0))
        return reads(folder)

    monkeypatch.setattr(exporting, "read_manifest", prunes_meanwhile)
    with pytest.raises(DeletedCheckpoint, match="was deleted while it was read") as raised:
        exporting.export_chosen(run, tmp_path / "out", STEP, merged=False)
    assert str(checkpoint) in raised.value.message and "without --step" in str(raised.value.hint)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused_in_one_sentence(
    base: Path, run: Path, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(run, built().objective.model)
    with pytest.raises(UserError, match="nothing says which model"):
        export(run, checkpoint, tmp_path / "out", merged=False)
    checkpoint = described(run / "whole", built(model=str(base)))
    with pytest.raises(UserError, match="--merged puts an adapter or a delta"):
        export(run / "whole", checkpoint, tmp_path / "out", merged=True)
    frozen = described(run / "frozen", built({"trainable": ["*mlp*"]}))  # a base made here
    with pytest.raises(UserError, match="what is not trained is in no checkpoint"):
        export(run / "frozen", frozen, tmp_path / "out", merged=False)
    shard = checkpoint / "rank-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match="is not what was written"):
        export(run / "whole", checkpoint, tmp_path / "out", merged=False)
    assert not (tmp_path / "out").exists()
