"""Samples of tokens, put together from a store as a plan says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from orchestrator.training.batch import IGNORED, Batch
from orchestrator.training.language.packing import Packing
from orchestrator.training.language.token_store import TokenStore


class Samples:
    """Sequences of `context` tokens, each one or several documents and, at its end, padding."""

    def __init__(self, store: TokenStore, packing: Packing, *, context: int, pad: int) -> None:
        self.context = context
        self._store, self._packing, self._pad = store, packing, pad
        lengths, bins = packing.pieces.lengths, packing.bins
        self._several = bool((np.diff(bins) > 1).any())
        self.tokens_per_sample = round(int(lengths.sum()) / max(1, len(self)))
        """Without padding, on average."""
        full = int(lengths.sum()) == context * len(self)
        self.uniform = full and not store.masked

    def __len__(self) -> int:
        return len(self._packing)

    def take(self, indices: Sequence[int]) -> Batch:
        """inputs["tokens"] and targets: int64, (samples, context) each; no target is in another
        document than its input.

        Where samples hold several documents also inputs["positions"], from 0 in each document,
        inputs["cu_seqlens"], their bounds in the batch laid out as one row, int32, and
        extras["longest"]. Padding at the end of a sample is a document of its own there.
        """
        shape = len(indices), self.context
        tokens = np.full(shape, self._pad, dtype=np.int64)
        targets = np.full(shape, IGNORED, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        lengths: list[int] = []
        for row, index in enumerate(indices):
            filled = 0
            for start, length in self._pieces(index):
                here = slice(filled, filled + length)
                stretch = self._store.tokens(start, start + length + 1)
                counts = self._store.counts(start + 1, start + length + 1)
                tokens[row, here] = stretch[:-1]
                targets[row, here] = np.where(counts, stretch[1:], IGNORED)
                positions[row, here] = np.arange(length)
                lengths.append(length)
                filled += length
            if filled < self.context:
                positions[row, filled:] = np.arange(self.context - filled)
                lengths.append(self.context - filled)
        inputs = {"tokens": torch.from_numpy(tokens)}
        extras = {}
        if self._several:
            bounds = torch.tensor([0, *lengths]).cumsum(0).int()
            inputs |= {"positions": torch.from_numpy(positions), "cu_seqlens": bounds}
            extras["longest"] = max(lengths)
        weight = int((targets != IGNORED).sum())
        return Batch(inputs, torch.from_numpy(targets), weight, extras=extras)

    def _pieces(self, index: int) -> list[tuple[int, int]]:
        packing = self._packing
        which = slice(int(packing.bins[index]), int(packing.bins[index + 1]))
        starts, lengths = packing.pieces.starts[which], packing.pieces.lengths[which]
        return list(zip(starts.tolist(), lengths.tolist(), strict=True))
