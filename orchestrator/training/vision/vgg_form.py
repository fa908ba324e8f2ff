"""A trained VGG as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from orchestrator.errors import UserError
from orchestrator.training.output import State
from orchestrator.training.vision.vgg import Vgg, VggShape

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
KIND = "ptx-vgg"


class VggForm:
    """config.json and model.safetensors; `load_vgg` reads them."""

    what = "the model"

    def __init__(self, model: nn.Module, shape: VggShape, classes: Sequence[str]) -> None:
        self.names = frozenset(model.state_dict())
        self._shape, self._classes = shape, classes

    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:  # noqa: ARG002
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        facts = {"model_type": KIND, "v": 1, "step": step} | self._shape.facts()
        facts["id2label"] = dict(enumerate(self._classes))
        (folder / CONFIG).write_text(json.dumps(facts, indent=2) + "\n")

    def describe(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002
        return {"form": "vgg", "shape": self._shape.facts(), "classes": list(self._classes)}


def load_vgg(folder: Path) -> Vgg:
    """The model that `VggForm` has written, on the CPU. Raises UserError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if facts.get("model_type") != KIND:
            raise UserError(f"{folder / CONFIG} describes no VGG that ptx has written")
        names = VggShape.__dataclass_fields__
        model = Vgg(VggShape(**{name: facts[name] for name in names}))
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot read the model in {folder}: {error}") from error
    return model
