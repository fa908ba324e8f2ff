"""Whether what is about to be a checkpoint could be trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from orchestrator.training.checkpoint.files import Copied
from orchestrator.training.checkpoint.pieces import MODEL, kind_of

_WINDOW = 1 << 22
"""Elements looked at in one go, for the sake of memory."""


def spoilt(parts: Iterable[Copied]) -> str | None:
    """The key of the first parameter that is not finite, or buffer that is not a number, else
    None. A buffer may be infinite, as a mask is, and so may the square of a gradient."""
    for part in parts:
        if kind_of(part.key) == MODEL and part.tensor.is_floating_point():
            good = _finite if part.trained else _number
            if not all(map(good, torch.split(part.tensor.view(-1), _WINDOW))):
                return part.key
    return None


def _finite(values: torch.Tensor) -> bool:
    if values.itemsize == 1:  # torch has no isfinite for some of these
        values = values.float()
    return bool(values.isfinite().all())


def _number(values: torch.Tensor) -> bool:
    return not values.isnan().any()
