"""The switches of ptx's own training entrypoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.base import (
    Fraction,
    Model,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
)


class Optimizer(Model):
    name: Literal["sgd", "adam", "adamw", "adamw-8bit"] = "adamw"
    """The optimizer."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled for adamw, added to the gradient otherwise."""
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    """Decay rates of Adam's two averages."""
    momentum: NonNegativeFloat = 0.0
    """Of sgd."""
    fused: bool = True
    """One kernel for the whole step, where the device has it."""


class Schedule(Model):
    name: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    """Shape of the learning rate after the warm-up."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0 to its peak."""
    final_ratio: NonNegativeFloat = 0.0
    """Learning rate at the last step as a share of the peak."""


class Lora(Model):
    """Low-rank adapters (Hu et al. 2021)."""

    rank: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveFloat = 32.0
    """Adapters are scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Share of an adapter's inputs that is dropped."""
    target_modules: list[Text] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an adapter."""
    quantize: Literal["none", "4bit", "8bit"] = "none"
    """Of the frozen base, with bitsandbytes: 4bit is QLoRA (Dettmers et al. 2023)."""


class ActivationCheckpointing(Model):
    mode: Literal["none", "full", "selective", "every-n"] = "none"
    """Which activations are recomputed instead of kept."""
    every: PositiveInt = 2
    """With every-n: each how many layers one is recomputed."""


class LocalSgd(Model):
    """Average the parameters every `interval` steps instead of the gradients (Lin et al. 2018)."""

    interval: PositiveInt
    """Steps between two averages."""
    warmup_steps: NonNegativeInt = 0
    """Steps at the start at which gradients are averaged as usual."""


class Evaluation(Model):
    """Loss (and accuracy) on held-out samples, and when to give up improving it."""

    every_steps: PositiveInt | None = None
    """Steps between two evaluations; null: once, at the end."""
    batches: PositiveInt | None = None
    """Micro batches a rank in one evaluation; null: all held-out samples."""
    patience: PositiveInt | None = None
    """Stop after so many evaluations in a row without a better loss."""
    min_delta: NonNegativeFloat = 0.0
    """By how much a loss must be lower to be better."""


class Training(Model):
    precision: Literal["fp32", "bf16", "bf16-mixed", "fp16-mixed"] = "fp32"
    """Of the arithmetic; mixed keeps fp32 parameters."""
    micro_batch: PositiveInt = 8
    """Samples a rank takes through the model at once."""
    accumulation: PositiveInt = 1
    """Micro batches a rank adds up before one optimizer step."""
    global_batch: PositiveInt | None = None
    """Checked, when given: micro_batch x accumulation x data-parallel size must equal it."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest norm of the gradient over all parameters."""
    optimizer: Optimizer = Optimizer()
    """What turns gradients into steps."""
    schedule: Schedule = Schedule()
    """The learning rate over time."""
    activation_checkpointing: ActivationCheckpointing = ActivationCheckpointing()
    """Trade time for memory."""
    compile: bool = False
    """torch.compile."""
    lora: Lora | None = None
    """Train low-rank adapters and freeze the rest."""
    trainable: list[Text] | None = None
    """Partial fine-tuning: patterns of parameter names that are trained; the rest is frozen."""
    local_sgd: LocalSgd | None = None
    """Average parameters now and then instead of gradients at every step."""
    find_micro_batch: bool = False
    """Before training, look for the largest micro batch that fits and divides micro_batch x
    accumulation, which stays what it is: the losses do not change."""
    out_of_memory: Literal["fail", "halve"] = "halve"
    """What an out-of-memory does: end the run, or go on with half the micro batch and twice the
    accumulation."""
    evaluation: Evaluation = Evaluation()
    """Held-out loss during training."""
    seed: NonNegativeInt = 0
    """Of every random generator."""
    deterministic: bool = False
    """The same numbers at every run, at some cost in speed."""
