"""Sequences packed full with documents, without a tokenizer or data from anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from orchestrator.training.batch import IGNORED, Batch

TYPICAL, SPREAD = 512, 1.0
"""Documents have log-normal lengths: this median in tokens, and a natural logarithm that spreads
so much around it, as web text does."""


class PackedDocuments:
    """Random tokens, since speed does not depend on them; lengths are drawn once, by `seed`."""

    uniform = False

    def __init__(self, *, samples: int, context: int, vocabulary: int, seed: int) -> None:
        """`context`: tokens a sample; documents are cut at its end."""
        self.tokens_per_sample = context
        self._vocabulary, self._seed = vocabulary, seed
        generator = torch.Generator().manual_seed(seed)
        self._lengths = [_filled(context, generator) for _ in range(samples)]

    def __len__(self) -> int:
        return len(self._lengths)

    def take(self, indices: Sequence[int]) -> Batch:
        """inputs["tokens"] and ["positions"], and targets: int64 (samples, context); ["cu_seqlens"]
        int32 (documents + 1,), their bounds in the batch laid out as one row. A document's last
        token predicts nothing."""
        lengths = [length for index in indices for length in self._lengths[index]]
        ends = torch.tensor(lengths).cumsum(0)
        tokens = torch.stack([self._tokens(index) for index in indices])
        targets = tokens.flatten().roll(-1)
        targets[ends - 1] = IGNORED
        positions = torch.cat([torch.arange(length) for length in lengths])
        return Batch(
            {
                "tokens": tokens,
                "positions": positions.view_as(tokens),
                "cu_seqlens": torch.cat((torch.zeros(1), ends)).to(torch.int32),
            },
            targets.view_as(tokens),
            weight=tokens.numel() - len(lengths),
            extras={"longest": max(lengths)},
        )

    def _tokens(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self._seed + 1 + index)
        return torch.randint(self._vocabulary, (self.tokens_per_sample,), generator=generator)


def _filled(context: int, generator: torch.Generator) -> list[int]:
    lengths: list[int] = []
    left = context
    while left:
        drawn = torch.empty(()).normal_(generator=generator).mul(SPREAD).exp() * TYPICAL
        lengths.append(min(left, max(2, int(drawn))))
        left -= lengths[-1]
    return lengths
