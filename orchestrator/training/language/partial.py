"""Partial fine-tuning: some parameters are trained, and only they are saved, as a delta."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from orchestrator.errors import UserError

TENSORS = "delta.safetensors"
DESCRIPTION = "delta.json"
VERSION = 1


def train_only(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freeze every parameter whose name fits none of the `patterns`; return the others' names.

    Patterns are those of the shell (`*`, `?`, `[...]`) over names as `named_parameters` has
    them. A tied parameter counts under each of its names and is returned under the first.
    Raises UserError for a pattern that fits no parameter.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"training.trainable: no parameter of the model fits {pattern!r}",
                hint=f"names are such as {', '.join(_near(pattern, names))}",
            )
    chosen = {
        id(parameter)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    return [name for name, parameter in model.named_parameters() if id(parameter) in chosen]


def write_delta(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    base: str,
    patterns: Sequence[str],
    step: int,
) -> None:
    """Write the trained tensors and what they belong to into `folder`, which is there."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    description = {
        "format": "ptx-delta",
        "version": VERSION,
        "base_model": base,
        "trainable": list(patterns),
        "step": step,
        "tensors": {name: list(tensor.shape) for name, tensor in sorted(tensors.items())},
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def base_of_delta(folder: Path) -> str:
    """Name or folder of the model that a delta was trained from. Raises UserError."""
    return str(_description(folder)["base_model"])


def load_delta(model: nn.Module, folder: Path) -> None:
    """Put a delta's tensors into `model`, its base, which keeps its dtype and device.

    Raises UserError where the folder holds no delta of this version, or one of another base.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    base = _description(folder)["base_model"]
    try:
        tensors = load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / TENSORS}: {error}") from error
    own = dict(model.named_parameters(remove_duplicate=False))
    _check_fit(tensors, own, folder, base)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _description(folder: Path) -> dict[str, object]:
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as the description of a delta: {error}") from error
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION or found.get("format") != "ptx-delta":
        raise UserError(f"{path} describes no delta of version {VERSION}, but {version!r}")
    return dict(found)


def _check_fit(
    tensors: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    folder: Path,
    base: object,
) -> None:
    for name, tensor in tensors.items():
        if name not in own:
            problem = f"which has no {name}"
        elif tensor.shape != own[name].shape:
            problem = f"whose {name} is {tuple(own[name].shape)} and not {tuple(tensor.shape)}"
        else:
            continue
        raise UserError(
            f"the delta {folder} does not belong to this model, {problem}",
            hint=f"it was trained from {base}",
        )


def _near(pattern: str, names: Collection[str], count: int = 5) -> list[str]:
    words = pattern.strip("*")
    near = get_close_matches(words, list(names), n=count, cutoff=0.3)
    return near or list(names)[:count]
