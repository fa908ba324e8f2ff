"""Low-rank adapters (Hu et al. 2021), through peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.errors import UserError
from orchestrator.spec.training import Lora
from orchestrator.training.errors import NotSupported
from orchestrator.training.plan import TrainingPlan

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_TRAINED_BESIDE = ("modules_to_save", "bias", "trainable_token_indices")
_NOTHING: tuple[Any, ...] = (None, "none", [], {})


def add_adapter(model: nn.Module, lora: Lora) -> nn.Module:
    """`model` of transformers, frozen, with a new adapter on its target modules: a PeftModel.

    Adapters are float32 on a base of lower precision, and change nothing before the first step.
    Raises UserError for target modules that the model has not.
    """
    _check_targets(model, lora)
    config = import_peft().LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    try:
        return adapted_by(model, config)
    except ValueError as error:  # a target that has no weights to adapt, as an activation
        raise UserError(
            f"training.lora.target_modules: {_first_sentence(error)}", hint=_targets(model)
        ) from error


def continue_adapter(model: nn.Module, folder: Path, lora: Lora, *, real: bool) -> nn.Module:
    """`model` with the adapter that `folder` holds in peft's format, to be trained further.

    Where `real` is false (the model is on the meta device) the weights are left out.
    Raises UserError where the adapter cannot be read, belongs to another model, or is not of the
    rank and alpha that the spec says, and NotSupported where it trains more than its matrices.
    """
    config = adapter_config(folder)
    if (config.r, float(config.lora_alpha)) != (lora.rank, lora.alpha):
        raise UserError(
            f"the adapter {folder} has rank {config.r} and alpha {config.lora_alpha}, and "
            f"training.lora says {lora.rank} and {lora.alpha:g}",
            hint="write the adapter's numbers into the spec",
        )
    if more := [name for name in _TRAINED_BESIDE if getattr(config, name, None) not in _NOTHING]:
        raise NotSupported(
            f"the adapter {folder} has {' and '.join(more)} in its {CONFIG}: it trains more than "
            "low-rank matrices, and that would not be saved",
            hint="continue it with peft itself, or begin a new adapter",
        )
    config.inference_mode = False
    config.lora_dropout = lora.dropout
    adapted = adapted_by(model, config)
    if real:
        load_adapter(adapted, folder)
    return adapted


def adapter_config(folder: Path) -> Any:
    """peft's LoraConfig of a saved adapter. Raises UserError where there is none."""
    peft = import_peft()
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} holds no adapter: it has no {CONFIG}",
            hint="give the folder that training or peft's save_pretrained has written",
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot read {folder / CONFIG}: {_first_sentence(error)}") from error
    if config.peft_type != peft.PeftType.LORA:
        raise NotSupported(f"the adapter {folder} is of type {config.peft_type}, and not LoRA")
    return config


def load_adapter(adapted: nn.Module, folder: Path) -> None:
    """Put a saved adapter's weights into a PeftModel of the same shape; all of them, or none.

    Raises UserError, naming the first tensor that does not fit.
    """
    peft = import_peft()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / WEIGHTS}: {error}") from error
    wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    for name in sorted(tensors.keys() | wanted.keys()):
        if name not in tensors:
            problem = f"it has no {name}"
        elif name not in wanted:
            problem = f"the model has no place for {name}"
        elif tensors[name].shape != wanted[name].shape:
            problem = (
                f"{name} is {tuple(tensors[name].shape)} there and "
                f"{tuple(wanted[name].shape)} in the model"
            )
        else:
            continue
        raise UserError(f"the adapter {folder} does not fit this model: {problem}")
    peft.set_peft_model_state_dict(adapted, tensors)


def adapter_tensors(adapted: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapter's part of a PeftModel's whole state, named as peft saves it."""
    found = import_peft().get_peft_model_state_dict(
        adapted, state_dict=state, save_embedding_layers=False
    )
    return {name: tensor.contiguous() for name, tensor in found.items()}


def is_adapter(name: str) -> bool:
    """Whether a parameter of a PeftModel is a low-rank adapter's."""
    return ".lora_" in name


def quantization(lora: Lora, plan: TrainingPlan) -> Any | None:
    """transformers' quantization settings for the frozen base, or None.

    4bit is NormalFloat with double quantization (QLoRA, Dettmers et al. 2023); 8bit is
    LLM.int8() (Dettmers et al. 2022). Raises NotSupported without bitsandbytes or a GPU, and
    under strategies that would cut quantized blocks apart.
    """
    if lora.quantize == "none":
        return None
    setting = f"training.lora.quantize: {lora.quantize}"
    strategy = plan.strategy
    if strategy.name != "ddp" or strategy.tensor_parallel > 1 or strategy.pipeline_parallel > 1:
        raise NotSupported(
            f"`{setting}` keeps the whole base on every GPU, and this strategy would cut it",
            hint="use `strategy: ddp`: a quantized base is small",
        )
    if plan.gpus_per_node == 0:
        raise NotSupported(f"`{setting}` needs GPUs", hint="train without it on CPU")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise NotSupported(
            f"`{setting}` needs the package bitsandbytes, which is not installed here",
            hint="pip install bitsandbytes, or set training.lora.quantize to none",
        ) from error
    import transformers

    settings: Any = transformers.BitsAndBytesConfig
    if lora.quantize == "8bit":
        return settings(load_in_8bit=True)
    return settings(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def import_peft() -> Any:
    """The package peft. Raises NotSupported where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise NotSupported(
            "adapters need the package peft, which is not installed here",
            hint="pip install 'ptx[train]'",
        ) from error
    return peft


def adapted_by(model: nn.Module, config: Any) -> nn.Module:
    """A PeftModel of `model`, in place, with new adapters as peft's `config` says."""
    config.base_model_name_or_path = None  # whatever it was called where it comes from
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers' next version, on every rank
        adapted: nn.Module = import_peft().get_peft_model(model, config)
    return adapted


def _check_targets(model: nn.Module, lora: Lora) -> None:
    """peft itself is content when one of several names is found."""
    if lora.target_modules == "all-linear":
        return
    names = [name for name, _ in model.named_modules()]
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UserError(
                f"training.lora.target_modules: the model has no module {target}",
                hint=_targets(model),
            )


def _targets(model: nn.Module) -> str:
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return f"its linear layers are {', '.join(_last_parts(linear))}"


def _last_parts(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})


def _first_sentence(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0]
