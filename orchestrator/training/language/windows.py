"""Samples cut from one long text of bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from orchestrator.errors import UserError
from orchestrator.training.batch import Batch


class Windows:
    """Windows of `context` + 1 bytes; neighbours share one byte, which one predicts and the
    other reads."""

    uniform = True

    def __init__(self, text: torch.Tensor, context: int, *, name: str = "the text") -> None:
        """`text`: uint8 (bytes,). Raises UserError, with `name`, where it is shorter than one
        window."""
        self.text = text
        self.context = context
        self.tokens_per_sample = context
        self._count = (len(text) - 1) // context
        if self._count < 1:
            raise UserError(
                f"{name} has {len(text):,} bytes, which do not fill one window of {context} + 1",
                hint="give more text with --data, or a smaller --context",
            )

    def __len__(self) -> int:
        return self._count

    def take(self, indices: Sequence[int]) -> Batch:
        """inputs["tokens"] and targets: int64, (samples, context) each."""
        starts = torch.tensor(indices).unsqueeze(1) * self.context
        bytes_ = self.text[starts + torch.arange(self.context + 1)].long()
        tokens, targets = bytes_[:, :-1].contiguous(), bytes_[:, 1:].contiguous()
        return Batch({"tokens": tokens}, targets, weight=targets.numel())
