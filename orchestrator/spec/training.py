"""The switches of ptx's own training entrypoints."""

from __future__ import annotations

from typing import Literal

from orchestrator.spec.base import (
    Model,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


class Optimizer(Model):
    name: Literal["sgd", "adam", "adamw", "adamw-8bit"] = "adamw"
    lr: PositiveFloat = 3e-4
    weight_decay: NonNegativeFloat = 0.0
    betas: list[float] = [0.9, 0.95]
    momentum: NonNegativeFloat = 0.0
    fused: bool = True


class Schedule(Model):
    name: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final_ratio: NonNegativeFloat = 0.0
    """Learning rate at the last step as a share of the peak."""


class Lora(Model):
    """Low-rank adapters (Hu et al. 2021)."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: NonNegativeFloat = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


class ActivationCheckpointing(Model):
    mode: Literal["none", "full", "selective", "every-n"] = "none"
    every: PositiveInt = 2
    """With every-n: each how many layers one is recomputed."""


class LocalSgd(Model):
    """Average the parameters every `interval` steps instead of the gradients (Lin et al. 2018)."""

    interval: PositiveInt
    warmup_steps: NonNegativeInt = 0


class Training(Model):
    precision: Literal["fp32", "bf16", "bf16-mixed", "fp16-mixed"] = "fp32"
    micro_batch: PositiveInt = 8
    """Samples a rank takes through the model at once."""
    accumulation: PositiveInt = 1
    """Micro batches a rank adds up before one optimizer step."""
    global_batch: PositiveInt | None = None
    """Checked, when given: micro_batch x accumulation x data-parallel size must equal it."""
    clip_grad_norm: PositiveFloat | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    activation_checkpointing: ActivationCheckpointing = ActivationCheckpointing()
    compile: bool = False
    lora: Lora | None = None
    trainable: list[str] | None = None
    """Partial fine-tuning: patterns of parameter names that are trained; the rest is frozen."""
    local_sgd: LocalSgd | None = None
    find_micro_batch: bool = False
    seed: NonNegativeInt = 0
    deterministic: bool = False
