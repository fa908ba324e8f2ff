"""Cross-entropy of an output layer, without ever holding all its logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from orchestrator.training.batch import IGNORED
from orchestrator.training.engines.tensor_loss import vocabulary_parallel_cross_entropy

LOGITS_AT_ONCE = 1 << 28
"""As float32 a GiB: large enough to keep a GPU busy, small beside a model that needs chunks."""


def summed_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """float32 scalar in nats. logits: (..., classes), whole or cut along the classes by tensor
    parallelism; targets: int64 (...), IGNORED where none."""
    if isinstance(logits, DTensor):
        return vocabulary_parallel_cross_entropy(logits, targets)
    return F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def whole_logits(logits: torch.Tensor) -> torch.Tensor:
    """The same on every rank, where tensor-parallel ranks have each a part of the classes."""
    return logits.full_tensor() if isinstance(logits, DTensor) else logits


def linear_cross_entropy(
    hidden: torch.Tensor,
    head: nn.Module,
    targets: torch.Tensor,
    *,
    vocabulary: int,
    at_once: int = LOGITS_AT_ONCE,
) -> torch.Tensor:
    """`summed_cross_entropy(head(hidden), targets)`, and the same gradients, with at most
    `at_once` logits in memory.

    hidden: (batch, time, dim); targets: int64 (batch, time). A plain output layer whose weight
    lies here whole gets its gradient in the forward pass, so that no logit is computed twice (Hsu
    et al. 2024, "Liger Kernel"). Any other head (an adapter's, a sharded one) is called as the
    module it is, chunk by chunk, and again in the backward pass (Chen et al. 2016).
    """
    time = hidden.shape[1]
    step = max(1, at_once // (vocabulary * hidden.shape[0]))
    if step >= time:
        return summed_cross_entropy(head(hidden), targets)
    if torch.is_grad_enabled() and _lies_whole(head, hidden):
        return _GradientInForward.apply(hidden, head.weight, targets, step)  # type: ignore[no-any-return,no-untyped-call]
    total = torch.zeros((), device=hidden.device)
    for start in range(0, time, step):
        part = hidden[:, start : start + step]
        aims = targets[:, start : start + step]
        total = total + checkpoint(_chunk, head, part, aims, use_reentrant=False)
    return total


def _chunk(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return summed_cross_entropy(head(hidden), targets)


def _lies_whole(head: nn.Module, hidden: torch.Tensor) -> bool:
    """Whether the head is its weight and nothing else, all of it on this rank, now.

    Hooks are how wrappers gather weights and exchange activations; ZeRO-3 marks what it has
    taken apart with `ds_id`. Gradients in fp16 need the loss scale, known in the backward only.
    """
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    weight = head.weight
    hooked = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks
    return (
        not hooked
        and not isinstance(weight, DTensor)
        and not isinstance(hidden, DTensor)
        and not hasattr(weight, "ds_id")
        and weight.shape == (head.out_features, head.in_features)
        and _arithmetic(hidden) is not torch.float16
    )


def _arithmetic(tensor: torch.Tensor) -> torch.dtype:
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


class _GradientInForward(torch.autograd.Function):
    """Logits of `step` positions at a time, turned into gradients while they are there."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, step: int
    ) -> torch.Tensor:
        dtype = _arithmetic(hidden)
        loss = torch.zeros((), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Sums over chunks stay in float32: in bfloat16 the later ones would be rounded away.
        grad_weight = (
            torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        )
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = weight.to(dtype)
            for start in range(0, hidden.shape[1], step):
                here = slice(start, start + step)
                rows = hidden[:, here].flatten(0, 1).to(dtype)
                aims = targets[:, here].flatten()
                counts = (aims != IGNORED).unsqueeze(1)
                aims = aims.clamp(min=0).unsqueeze(1)
                logs = torch.log_softmax(rows @ matrix.T, dim=-1, dtype=torch.float32)
                loss -= (logs.gather(1, aims) * counts).sum()
                slopes = logs.exp_().scatter_add_(1, aims, logs.new_full((len(aims), 1), -1.0))
                slopes = slopes.to(dtype)
                # Ignored rows are taken out of the small factor of each product.
                if grad_hidden is not None:
                    grad = (slopes @ matrix) * counts
                    grad_hidden[:, here] = grad.view_as(hidden[:, here])
                if grad_weight is not None:
                    grad_weight += slopes.T @ (rows * counts)
        ctx.grads = grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (scale,) = grads
        # In place, and so once: a second copy of the weight's gradient can be gigabytes.
        (grad_hidden, grad_weight), ctx.grads = ctx.grads, None
        if grad_hidden is not None:
            grad_hidden.mul_(scale)
        if grad_weight is not None:
            grad_weight.mul_(scale)
        return grad_hidden, grad_weight, None, None
