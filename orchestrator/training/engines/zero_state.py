"""Whole tensors from what DeepSpeed has cut over the ranks, and the model's own made anew."""

from __future__ import annotations

from typing import Any

import torch


def whole_tensor(tensor: torch.Tensor, *, master: bool) -> torch.Tensor:
    """A parameter in full, or a buffer as it is; all ranks call it.

    With `master`, a trained parameter comes from the float32 weights that DeepSpeed's optimizer
    cuts over the ranks: under mixed precision the model's own are roundings of them.
    """
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    if master and tensor.requires_grad:
        exact: torch.Tensor = safe_get_full_fp32_param(tensor)
        return exact.detach().view(getattr(tensor, "ds_shape", tensor.shape))
    if not hasattr(tensor, "ds_id"):
        return tensor.detach()
    with GatheredParameters([tensor]):
        return tensor.detach().clone()


def refresh_parameters(engine: Any) -> None:
    """Give the model the values of the optimizer's master weights, as after a step.

    `engine` is a DeepSpeedEngine; all ranks call it.
    """
    optimizer = engine.optimizer
    if engine.zero_optimization_stage() < 3:
        optimizer.update_lp_params()
        return
    optimizer.checkpoint_event_prologue()  # frees what is gathered
    for number in range(len(optimizer.fp16_groups)):
        optimizer._reassign_or_swap_out_partitioned_parameters(number)
    optimizer.checkpoint_event_epilogue()  # gathers again what stays gathered
