"""Whole tensors from what DeepSpeed has cut over the ranks."""

from __future__ import annotations

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
