"""How much arithmetic a model needs, and how much a device can do: model FLOPs utilisation.

The share of a device's peak that training reaches, counting only what the model needs and not what
is recomputed (Chowdhery et al. 2022, "PaLM", appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTHS = ("hidden_size", "n_embd", "dim", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads")


@dataclass(frozen=True)
class ModelShape:
    """What the arithmetic of a transformer follows from. Counted before parameters are spread."""

    trained: int
    """Parameters in training, without the input embedding: its table is read, not multiplied."""
    frozen: int
    """The others, counted in the same way."""
    layers: int = 0
    width: int = 0
    """Of all attention heads together. 0 where the model's config does not say."""

    @property
    def formula(self) -> str:
        frozen = " + 4 N_frozen" if self.frozen else ""
        attention = " + 12 layers width sequence" if self.layers else ""
        return f"6 N{frozen}{attention}, N without embedding"

    def flops_per_token(self, sequence: int) -> float:
        """Of forward and backward in training on sequences of `sequence` tokens.

        A weight costs 2 in forward, 2 for its input's gradient and 2 for its own, which a frozen
        one (LoRA's base) does not need; attention 12 a layer, width and position, as if no
        position were masked.
        """
        weights = 6 * self.trained + 4 * self.frozen
        return float(weights + 12 * self.layers * self.width * sequence)


def shape_of(model: nn.Module) -> ModelShape:
    """Read off the parameters and the transformers config that the model or a part of it carries.

    A table that is the output layer as well (tied) is multiplied with, so it counts.
    """
    only_read = _tables_only_read(model)
    trained = frozen = 0
    for parameter in model.parameters():
        if id(parameter) in only_read:
            continue
        if parameter.requires_grad:
            trained += _elements(parameter)
        else:
            frozen += _elements(parameter)
    layers, width = _attention(model)
    return ModelShape(trained, frozen, layers, width)


def _tables_only_read(model: nn.Module) -> set[int]:
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return tables - {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}


def _elements(parameter: nn.Parameter) -> int:
    """Of the whole parameter: ZeRO leaves an empty one behind, bitsandbytes two in a byte."""
    packed = getattr(parameter, "quant_state", None)
    if packed is not None:
        return int(torch.Size(packed.shape).numel())
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _attention(model: nn.Module) -> tuple[int, int]:
    for module in model.modules():
        config = getattr(module, "config", None)
        depth, width = _first(config, _DEPTHS), _first(config, _WIDTHS)
        if depth and width:
            heads, head = _first(config, _HEADS), _first(config, ("head_dim",))
            return depth, heads * head or width
    return 0, 0


def _first(config: object, names: tuple[str, ...]) -> int:
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int)), 0)


@dataclass(frozen=True)
class Peak:
    """What a device can do at most in dense matrix products, and where that number is from."""

    flops: float | None
    """A second; None where it is not known."""
    name: str | None
    reason: str | None = None
    """Why it is not known."""


# FLOP/s of dense matrix products from the makers' data sheets: in 16-bit formats, then in fp32
# outside of the tensor cores. The first row whose words are all in the device's name counts.
_PEAKS: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("B200",), 2250e12, 75e12),
    (("H200", "NVL"), 835.5e12, 60e12),
    (("H200",), 989.5e12, 67e12),
    (("GH200",), 989.5e12, 67e12),
    (("H100", "NVL"), 835.5e12, 60e12),
    (("H100", "PCIe"), 756e12, 51e12),
    (("H100",), 989.5e12, 67e12),
    (("A100",), 312e12, 19.5e12),
    (("L40S",), 362e12, 91.6e12),
    (("L4",), 121e12, 30.3e12),
    (("V100",), 125e12, 15.7e12),
    (("T4",), 65e12, 8.1e12),
    (("A10",), 125e12, 31.2e12),
    (("5090",), 209.5e12, 104.8e12),
    (("4090",), 165.2e12, 82.6e12),
    (("3090",), 71e12, 35.6e12),
    (("MI300X",), 1307.4e12, 163.4e12),
)


def peak_of(device: torch.device, precision: str) -> Peak:
    """Of the GPU that `device` is, in the arithmetic that the spec's `precision` leads to."""
    if device.type != "cuda":
        return Peak(None, None, f"no peak is known for {device.type}")
    return peak_by_name(torch.cuda.get_device_name(device), precision)


def peak_by_name(device_name: str, precision: str) -> Peak:
    """`device_name` as the driver gives it. A slice of a GPU (MIG) has no published peak."""
    words = device_name.replace("-", " ").split()
    if "MIG" not in words:
        for wanted, sixteen_bit, fp32 in _PEAKS:
            if all(word in words or f"RTX{word}" in words for word in wanted):
                kind = "fp32" if precision == "fp32" else "16-bit dense"
                flops = fp32 if precision == "fp32" else sixteen_bit
                return Peak(flops, f"{device_name}, {kind}")
    return Peak(None, None, f"no peak is known for {device_name}")
