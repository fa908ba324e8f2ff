"""Optimizer and learning rate, from the spec's `training` section."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from orchestrator.spec.training import Optimizer, Schedule
from orchestrator.training.errors import NotSupported
from orchestrator.training.metrics import warn

_FUSED = ("cuda", "cpu", "mps", "xpu", "hpu", "mtia")
"""Devices for which PyTorch has fused optimizers."""


def build_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """SGD (Polyak 1964 with momentum), Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter
    2019), or AdamW with 8-bit state (Dettmers et al. 2022), over what is trainable.

    "fused" falls back to PyTorch's other kernels, with a note, where a device has none.
    Raises NotSupported where the 8-bit one cannot work here.
    """
    groups = decay_groups(model, settings.weight_decay)
    if settings.name == "adamw-8bit":
        return _eight_bit(groups, settings)
    fused = settings.fused
    odd = next((p for group in groups for p in group["params"] if not _can_fuse(p)), None)
    if fused and odd is not None:
        fused = False
        if not dist.is_initialized() or dist.get_rank() == 0:
            kind = str(odd.dtype).removeprefix("torch.")
            warn(f"training.optimizer.fused has no effect here: {kind} on {odd.device.type}")
    return _of_torch(groups, settings, fused=fused)


def _can_fuse(parameter: nn.Parameter) -> bool:
    """PyTorch itself says so only at the first step."""
    return parameter.is_floating_point() and parameter.device.type in _FUSED


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in groups with their weight decay; empty groups are left out.

    Weight decay is for matrices and kernels, embedding tables included; norms and biases, which
    have one dimension, are left out of it.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if _dimensions(p) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if _dimensions(p) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _dimensions(parameter: nn.Parameter) -> int:
    """Of the whole parameter: ZeRO leaves a flat piece in its place."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def _of_torch(
    groups: list[dict[str, Any]], settings: Optimizer, *, fused: bool
) -> torch.optim.Optimizer:
    if settings.name == "sgd":
        # DTensor has no rule for this fused kernel, and would say so at the first step.
        cut = any(isinstance(p, DTensor) for group in groups for p in group["params"])
        fused = fused and not cut
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    first, second = settings.betas
    return kind(groups, lr=settings.lr, betas=(first, second), fused=fused)


def _eight_bit(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    parameters = [parameter for group in groups for parameter in group["params"]]
    if any(parameter.device.type != "cuda" for parameter in parameters):
        raise NotSupported(
            "training.optimizer.name adamw-8bit works on GPUs alone, and here parameters are "
            "on the CPU",
            hint="write adamw",
        )
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        raise NotSupported(
            "bitsandbytes' adamw-8bit cannot work on parameters that fsdp or tensor parallelism "
            "has cut",
            hint="write adamw, which fsdp shards anyway, or use strategy ddp",
        )
    try:
        import bitsandbytes
    except ImportError as error:
        raise NotSupported(
            "training.optimizer.name is adamw-8bit and the package bitsandbytes is not installed",
            hint="pip install bitsandbytes, or write adamw",
        ) from error
    first, second = settings.betas
    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        groups, lr=settings.lr, betas=(first, second)
    )
    return optimizer


def lr_at(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of `step` (from 0) out of `steps`: linear warm-up, then the schedule's curve.

    The curve ends at `final_ratio` x peak in the last step. "cosine" is half a period
    (Loshchilov and Hutter 2017); "exponential" multiplies by the same factor every step, which
    never reaches a `final_ratio` of 0.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    after_warmup = max(1, steps - 1 - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / after_warmup)
    return peak * _curve(progress, schedule)


def _curve(progress: float, schedule: Schedule) -> float:
    final = schedule.final_ratio
    if schedule.name == "linear":
        return 1.0 + (final - 1.0) * progress
    if schedule.name == "cosine":
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule.name == "exponential":
        return math.pow(final, progress)
    return 1.0
