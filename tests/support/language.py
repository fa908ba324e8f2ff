"""Small language models on one process, built and saved by the library's own code."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.language.export import export
from orchestrator.training.language.models import LanguageModel, build_language_model
from orchestrator.training.language.tokenizers import load_tokenizer
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.process_group import Rank

BYTES = load_tokenizer("bytes")
ALONE = Rank(0, 1, 0, torch.device("cpu"))
TOKENS = torch.arange(1, 25).view(2, 12)


def settings(**changed: Any) -> SimpleNamespace:
    """A Llama with grouped key-value heads, and what `changed` says."""
    usual = {"model": "llama", "adapter": None, "context": 32, "dim": 32, "layers": 2, "heads": 4}
    more = {"kv_heads": 2, "hidden": None, "tied": False, "rope_theta": 10_000.0}
    return SimpleNamespace(**(usual | more | changed))


def plan_with(
    training: dict[str, Any] | None = None, strategy: dict[str, Any] | None = None, **changed: Any
) -> TrainingPlan:
    return dataclasses.replace(
        load_plan({}, gpus=0),
        training=Training.model_validate(training or {}),
        strategy=TypeAdapter[Strategy](Strategy).validate_python(strategy or {"name": "ddp"}),
        **changed,
    )


def built(
    training: dict[str, Any] | None = None,
    strategy: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    **changed: Any,
) -> LanguageModel:
    torch.manual_seed(seed)
    return build_language_model(settings(**changed), plan_with(training, strategy), ALONE, BYTES)


def saved(language: LanguageModel, folder: Path, *, step: int = 3) -> Path:
    """Exported as training would, from the state of a model that is whole."""
    names = language.form.names
    state = language.objective.model.state_dict()
    whole = {name: tensor for name, tensor in state.items() if name in names}
    export(language.form, whole, folder, tokenizer=BYTES, step=step)
    return folder


@torch.no_grad()
def moved(model: nn.Module) -> nn.Module:
    """With every parameter that is trained changed, as after some steps."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.1 * noise.to(parameter.dtype)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """For the same few tokens each time: (2, 12, vocabulary)."""
    model.eval()
    found = model(TOKENS)
    result: torch.Tensor = found if isinstance(found, torch.Tensor) else found.logits
    return result
