"""The built-in model on disk: its shape as JSON, its weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from orchestrator.errors import UserError
from orchestrator.training.language.byte_model import VOCABULARY, ByteTransformer

SHAPE = "byte_model.json"
WEIGHTS = "model.safetensors"
_HEADER = {"format": "ptx-byte-model", "version": 1}


@dataclass(frozen=True)
class ByteModelShape:
    """What a ByteTransformer is made from."""

    context: int
    dim: int
    layers: int
    heads: int
    vocabulary: int = VOCABULARY

    def build(self) -> ByteTransformer:
        """With new weights. Raises UserError for dims that do not divide."""
        return ByteTransformer(**asdict(self))


def write_byte_model(
    folder: Path, shape: ByteModelShape, state: Mapping[str, torch.Tensor]
) -> None:
    """Into `folder`, which is there; `state` is that of the whole model."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS)
    (folder / SHAPE).write_text(json.dumps(_HEADER | asdict(shape), indent=2) + "\n")


def load_byte_model(folder: Path) -> ByteTransformer:
    """What `write_byte_model` wrote. Raises UserError where it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
        header = {name: found.pop(name, None) for name in _HEADER}
        if header != _HEADER:
            raise UserError(f"{folder / SHAPE} is of a format that this ptx does not read")
        model = ByteModelShape(**found).build()
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"cannot read the model in {folder}: {error}") from error
    except RuntimeError as error:  # load_state_dict's list of what does not fit
        raise UserError(f"the weights in {folder} do not fit its {SHAPE}: {error}") from error
    return model
