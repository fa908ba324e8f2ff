"""Optimizer and learning rate, from the spec's `training` section."""

from __future__ import annotations

import math

import torch
from torch import nn

from orchestrator.spec.training import Optimizer, Schedule
from orchestrator.training.errors import NotSupported


def build_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """SGD, Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) over what is trainable.

    Weight decay is for matrices; norms and biases are left out of it.
    Raises NotSupported for other names.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, fused=settings.fused
        )
    if settings.name not in ("adam", "adamw"):
        raise NotSupported(f"training.optimizer.name {settings.name} is not built here")
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    first, second = settings.betas
    return kind(groups, lr=settings.lr, betas=(first, second), fused=settings.fused)


def lr_at(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of `step` (from 0) out of `steps`: linear warm-up, then the schedule's curve.

    The curve ends at `final_ratio` x peak in the last step. "cosine" is half a period
    (Loshchilov and Hutter 2017); "exponential" multiplies by the same factor every step.
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
