"""Activation checkpointing (Chen et al. 2016): recompute in backward instead of keeping."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from orchestrator.spec.training import ActivationCheckpointing
from orchestrator.training.engines.layers import layers_of
from orchestrator.training.errors import NotSupported

# What costs the most to compute anew, and is kept: matrix products and attention, as in
# torchtitan's selective mode. The rest (norms, activations, rotations) costs memory traffic alone.
_KEPT = (
    "aten.mm.default",
    "aten.addmm.default",
    "aten.bmm.default",
    "aten.baddbmm.default",
    "aten.convolution.default",
    "aten._scaled_dot_product_flash_attention.default",
    "aten._scaled_dot_product_efficient_attention.default",
    "aten._scaled_dot_product_cudnn_attention.default",
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
    "aten._scaled_dot_product_fused_attention_overrideable.default",
    "torch_attn._varlen_attn.default",
    "higher_order.flex_attention",
    # Sent over a network once; again would cost as much as a layer.
    "_c10d_functional.reduce_scatter_tensor.default",
    "_c10d_functional.all_reduce.default",
)


def checkpoint_layers(module: nn.Module, settings: ActivationCheckpointing) -> None:
    """Let the layers of `module` recompute what the settings say, in place.

    "full": a layer keeps its input alone; "selective": the results of matrix products and
    attention too; "every-n": every n-th layer is "full", the others keep everything.
    Random numbers (dropout) are drawn again as they were. Names of parameters do not change.
    Raises NotSupported where the model has no repeated layers.
    """
    if settings.mode == "none":
        return
    layers = layers_of(module)
    if not layers:
        raise NotSupported(
            f"training.activation_checkpointing.mode is {settings.mode} and this model has no "
            "repeated layers to recompute",
            hint="set it to none, or use a smaller training.micro_batch",
        )
    every = settings.every if settings.mode == "every-n" else 1
    for layer in layers[every - 1 :: every]:
        layer.forward = _recomputed(layer.forward, selective=settings.mode == "selective")


def _recomputed(forward: Callable[..., Any], *, selective: bool) -> Callable[..., Any]:
    # On the instance: hooks of wrappers (FSDP gathers parameters in them) stay outside, and run
    # before the recomputation as before every backward pass.
    options: dict[str, Any] = {"context_fn": _contexts()} if selective else {}

    @wraps(forward)
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **options, **kwargs)

    return recomputed


def _contexts() -> Callable[[], Any]:
    kept = frozenset(op for op in map(_operator, _KEPT) if op is not None)

    def policy(
        _context: SelectiveCheckpointContext, op: object, *_args: object, **_kwargs: object
    ) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if op in kept else CheckpointPolicy.PREFER_RECOMPUTE

    return partial(create_selective_checkpoint_contexts, policy)


def _operator(name: str) -> object | None:
    """None where this build of PyTorch has none of that name."""
    found: object = torch.ops
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found
