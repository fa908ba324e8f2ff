"""What a run's model is, written at its start: a checkpoint holds tensors and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.training.language.adapters import adapted_by, adapter_config
from orchestrator.training.language.byte_model_file import ByteModelShape
from orchestrator.training.language.forms import AdapterForm, ByteForm, DeltaForm, FullForm
from orchestrator.training.metrics import warn
from orchestrator.training.output import SavedForm, replacing
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.vision.vgg import Vgg, VggShape
from orchestrator.training.vision.vgg_form import VggForm

FORM = "form.json"
BESIDE = "beside"
VERSION = 1


def describe_model(
    form: SavedForm, plan: TrainingPlan, rank: Rank, *, beside: Callable[[Path], None]
) -> None:
    """Write `model-description.NNN` of the attempt into the run's folder, where the model is
    another than before; rank 0 does, others and runs without a folder do nothing. `beside` writes
    what belongs to the model beside it, as a tokenizer.

    What earlier attempts saved is not of this model, which their checkpoints may not even fit. A
    disk that is full or gone ends no training: checkpoints can then not be exported.
    """
    if plan.run_dir is None or not rank.is_main:
        return
    folder = RunLayout(plan.run_dir).model_description(plan.attempt)
    try:
        before = description_of(plan.run_dir, plan.attempt - 1)
        with replacing(folder, group_shared=plan.group_shared) as new:
            facts = {"v": VERSION, **form.describe(new)}
            (new / BESIDE).mkdir()
            beside(new / BESIDE)
            (new / FORM).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if before != folder and _contents(before) == _contents(folder):
            shutil.rmtree(folder)
    except OSError as error:
        warn(f"rank 0: cannot write {folder}: {error.strerror or error}; training goes on")


def description_of(run: Path, attempt: int) -> Path:
    """Of the model that this attempt of the run trained; it need not be there."""
    layout = RunLayout(run)
    for number in range(attempt, -1, -1):
        if layout.model_description(number).is_dir():
            return layout.model_description(number)
    return layout.model_description(max(attempt, 0))


def _contents(folder: Path) -> dict[Path, bytes]:
    """By path; {} where there is no folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def read_description(folder: Path) -> dict[str, Any]:
    """The facts of a model description. Raises UserError."""
    path = folder / FORM
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is not there, so nothing says which model the checkpoint is of",
            hint="entrypoints write it at their start with `describe_model`; "
            "`ptx checkpoints convert --weights-only` needs none",
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(facts, dict) or facts.get("v") != VERSION:
        raise UserError(f"{path} is of a version that this ptx does not read")
    return facts


def described_form(folder: Path, facts: dict[str, Any]) -> SavedForm:
    """The form that `describe_model` was given, of a model without weights. Raises UserError."""
    makers: dict[str, Callable[[Path, dict[str, Any]], SavedForm]] = {
        "byte": _byte,
        "full": _full,
        "adapter": _adapter,
        "delta": _delta,
        "vgg": _vgg,
    }
    if facts.get("form") not in makers:
        raise UserError(f"{folder / FORM} is of a form that this ptx does not know")
    try:
        with torch.device("meta"):
            return makers[facts["form"]](folder, facts)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / FORM} is not whole: {error!r}") from error


def copy_beside(folder: Path, target: Path) -> None:
    """What belongs beside the model, into `target`, which is there."""
    shutil.copytree(folder / BESIDE, target, dirs_exist_ok=True)


def _byte(_folder: Path, facts: dict[str, Any]) -> SavedForm:
    shape = ByteModelShape(**facts["shape"])
    return ByteForm(shape.build(), shape)


def _full(folder: Path, facts: dict[str, Any]) -> SavedForm:
    return FullForm(_empty(folder, facts["class"]))


def _adapter(folder: Path, facts: dict[str, Any]) -> SavedForm:
    adapted = adapted_by(_empty(folder / "base", facts["class"]), adapter_config(folder))
    return AdapterForm(adapted, base=facts["base"])


def _delta(_folder: Path, facts: dict[str, Any]) -> SavedForm:
    return DeltaForm(facts["names"], base=facts["base"], patterns=facts["patterns"])


def _vgg(_folder: Path, facts: dict[str, Any]) -> SavedForm:
    shape = VggShape(**facts["shape"])
    return VggForm(Vgg(shape), shape, facts["classes"])


def _empty(folder: Path, kind: str) -> Any:
    """A model of transformers without weights."""
    import transformers

    found: Any = getattr(transformers, kind, None)
    if found is None:
        raise UserError(
            f"this transformers has no model class {kind}",
            hint="export with the transformers that the run was trained with",
        )
    config = transformers.AutoConfig.from_pretrained(str(folder))
    model = found._from_config(config)
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(str(folder))
    return model
