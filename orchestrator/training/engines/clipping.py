"""The gradient's norm over everything, however it is spread."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> torch.Tensor:
    """Scale all gradients so that their joint L2 norm is at most `largest` (Pascanu et al. 2013).

    Returns the norm before that, a scalar on the gradients' device.
    """
    return nn.utils.clip_grad_norm_(parameters, largest)
