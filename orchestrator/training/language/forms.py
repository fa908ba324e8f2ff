"""The forms in which a trained model is saved: which tensors, and as which files."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.training.language.adapters import CONFIG, WEIGHTS, adapter_tensors, is_adapter
from orchestrator.training.language.byte_model_file import ByteModelShape, write_byte_model
from orchestrator.training.language.partial import write_delta
from orchestrator.training.language.pretrained import quiet

MAX_SHARD = "5GB"
State = dict[str, torch.Tensor]


class Form(ABC):
    """Made while the model is whole; writes its tensors once they have been gathered."""

    names: frozenset[str]
    """Of the tensors that are saved, in the model's own state dict; tied ones once."""
    what: str
    """In words, for the log."""

    @abstractmethod
    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:
        """Write files into `folder`, which is there and empty, and will be moved to `home`.

        `state` has exactly the tensors `names`, whole and on the CPU.
        """

    @abstractmethod
    def describe(self, folder: Path) -> dict[str, Any]:
        """Write into `folder` what `described_form` makes this form of again, and return the rest
        of it, in values of JSON: all but tensors."""

    def rebuilt(self, state: State) -> nn.Module | None:  # noqa: ARG002
        """The trained model whole on the CPU, where `state` is all that it needs."""
        return None


class ByteForm(Form):
    """The built-in model."""

    what = "the model"

    def __init__(self, model: nn.Module, shape: ByteModelShape) -> None:
        self.names, self.shape = tensor_names(model), shape

    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:  # noqa: ARG002
        write_byte_model(folder, self.shape, state)

    def describe(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002
        return {"form": "byte", "shape": asdict(self.shape)}

    def rebuilt(self, state: State) -> nn.Module:
        model = self.shape.build()
        model.load_state_dict(state)
        return model


class FullForm(Form):
    """A whole model in Hugging Face's own format: `from_pretrained` loads it."""

    what = "the model"

    def __init__(self, model: Any) -> None:
        self.names = tensor_names(model)
        self._kind = type(model)
        self._config = copy.deepcopy(model.config)
        self._generation = copy.deepcopy(getattr(model, "generation_config", None))
        self._conversions = getattr(model, "_weight_conversions", None)

    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:  # noqa: ARG002
        # The trained module itself is wrapped and cut by now; what writes the files is a shell.
        with torch.device("meta"):
            shell = self._kind._from_config(self._config)
        shell.generation_config = self._generation
        shell._weight_conversions = self._conversions
        dtypes = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
        if len(dtypes) == 1:
            shell.to(dtypes.pop())
        with quiet():
            shell.save_pretrained(folder, state_dict=state, max_shard_size=MAX_SHARD)

    def describe(self, folder: Path) -> dict[str, Any]:
        self._config.save_pretrained(str(folder))
        if self._generation is not None:
            self._generation.save_pretrained(str(folder))
        return {"form": "full", "class": self._kind.__name__}

    def rebuilt(self, state: State) -> nn.Module:
        model: nn.Module = self._kind._from_config(self._config)
        model.load_state_dict(state, strict=False)  # tied weights come once
        return model


class AdapterForm(Form):
    """peft's own folder: `PeftModel.from_pretrained` loads it over the same base.

    A base that was made here, and is nowhere else, is written beside it as `base`.
    """

    what = "the adapter"

    def __init__(self, adapted: Any, *, base: str, unsaved_base: FullForm | None = None) -> None:
        self._adapted = adapted
        self._config = copy.deepcopy(adapted.peft_config["default"])
        self._config.base_model_name_or_path = base
        self._base = unsaved_base
        self._whole = FullForm(adapted.get_base_model())
        adapters = frozenset(filter(is_adapter, tensor_names(adapted)))
        self._base_names = tensor_names(adapted) - adapters if unsaved_base else frozenset()
        self.names = adapters | self._base_names

    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:
        from safetensors.torch import save_file

        adapters = {name: state[name] for name in self.names - self._base_names}
        save_file(
            adapter_tensors(self._adapted, adapters), folder / WEIGHTS, metadata={"format": "pt"}
        )
        config = copy.deepcopy(self._config)
        if self._base is not None:
            config.base_model_name_or_path = str(home / "base")
            whole = {_name_in_base(name): state[name] for name in self._base_names}
            (folder / "base").mkdir()
            self._base.write(folder / "base", whole, home=home / "base", step=step)
        config.inference_mode = True
        config.save_pretrained(str(folder))
        if not (folder / CONFIG).is_file():
            raise RuntimeError(f"peft wrote no {CONFIG}")

    def describe(self, folder: Path) -> dict[str, Any]:
        (folder / "base").mkdir()
        whole = self._whole.describe(folder / "base")
        config = copy.deepcopy(self._config)
        if isinstance(config.target_modules, set):  # in another order at each start
            config.target_modules = sorted(config.target_modules)
        config.save_pretrained(str(folder))
        base = self._config.base_model_name_or_path
        return {
            "form": "adapter",
            "class": whole["class"],
            "base": base,
            "base_is_saved": self._base is None,
        }


class DeltaForm(Form):
    """The trained tensors alone, to be loaded over the base."""

    what = "the trained parameters"

    def __init__(self, trained: Sequence[str], *, base: str, patterns: Sequence[str]) -> None:
        self.names = frozenset(trained)
        self._base, self._patterns = base, patterns

    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:  # noqa: ARG002
        write_delta(folder, state, base=self._base, patterns=self._patterns, step=step)

    def describe(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002
        return {
            "form": "delta",
            "names": sorted(self.names),
            "base": self._base,
            "patterns": list(self._patterns),
        }


def tensor_names(model: nn.Module) -> frozenset[str]:
    """Of parameters, the tied ones under their first name alone, and of buffers that are saved."""
    parameters = {name for name, _ in model.named_parameters()}
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return frozenset(parameters | (model.state_dict().keys() - aliases))


def _name_in_base(name: str) -> str:
    """Of a base's tensor, from its name inside a PeftModel."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
