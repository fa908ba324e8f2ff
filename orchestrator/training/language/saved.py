"""A trained model read back, whole: from what training saved or anything transformers can load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.errors import UserError
from orchestrator.training.language.adapters import (
    CONFIG,
    adapted_by,
    adapter_config,
    load_adapter,
)
from orchestrator.training.language.attention import masked_attention
from orchestrator.training.language.byte_model_file import SHAPE, load_byte_model
from orchestrator.training.language.partial import DESCRIPTION, base_of_delta, load_delta
from orchestrator.training.language.pretrained import has_weights, load_config, pretrained_model
from orchestrator.training.language.saved_tokenizer import saved_tokenizer
from orchestrator.training.language.tokenizers import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class SavedModel:
    model: nn.Module
    tokenizer: Tokenizer
    kind: str
    """In words."""


def load_saved(
    name: str,
    *,
    base: str | None = None,
    tokenizer: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> SavedModel:
    """The model in folder `name` (or of that name on the hub), on the CPU, in evaluation mode.

    An adapter or a delta is put over `base`, by default the one it was trained from. Raises
    UserError where something is not there or does not belong together.
    """
    folder = Path(name)
    model: nn.Module
    own_base: str | None = None
    if (folder / SHAPE).is_file():
        kind, model = "built-in model", load_byte_model(folder)
    elif (folder / CONFIG).is_file():
        own_base = _needed(base or adapter_config(folder).base_model_name_or_path, name)
        kind, model = f"adapter over {own_base}", _adapted(folder, own_base, dtype)
    elif (folder / DESCRIPTION).is_file():
        own_base = base or base_of_delta(folder)
        kind, model = f"trained parameters over {own_base}", _full(own_base, dtype)
        load_delta(model, folder)
    else:
        kind, own_base, model = "whole model", name, _full(name, dtype)
    read = load_tokenizer(tokenizer) if tokenizer else saved_tokenizer(folder, own_base)
    return SavedModel(model.eval(), read, kind)


def _full(name: str, dtype: torch.dtype) -> nn.Module:
    config = load_config(name)
    if not has_weights(name):
        raise UserError(f"the folder {name} has a configuration and no weights")
    return pretrained_model(name, config, dtype=dtype, attention=masked_attention(config))


def _adapted(folder: Path, base: str, dtype: torch.dtype) -> nn.Module:
    model = _full(base, dtype)
    adapted: Any = adapted_by(model, adapter_config(folder))
    load_adapter(adapted, folder)
    merged: nn.Module = adapted.merge_and_unload()
    return merged


def _needed(base: str | None, name: str) -> str:
    if base is None:
        raise UserError(f"the adapter {name} does not say what it belongs to", hint="give --base")
    return base
