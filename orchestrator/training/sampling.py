"""Which sample is whose: shuffled windows of text, computed from the sample's number alone.

Nothing is stored, so the position in the data is one integer, whatever the world size.
"""

from __future__ import annotations

import hashlib

import torch

from orchestrator.errors import UserError

_ROUNDS = 4


def permuted(index: int, size: int, key: bytes) -> int:
    """Where `index` (0 <= index < size) lands in a shuffle of range(size) made by `key`.

    A Feistel network over the next power of four, walked until it lands inside: a bijection
    without a table (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for number in range(_ROUNDS):
            digest = hashlib.blake2b(
                right.to_bytes(8, "little"), key=key, salt=bytes([number]), digest_size=8
            ).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        index = left << half | right
        if index < size:
            return index


class Windows:
    """Windows of `context` + 1 bytes; neighbours share one byte, which one predicts and the
    other reads. Samples are numbered without end: each epoch is another shuffle of all windows.
    """

    def __init__(self, text: torch.Tensor, context: int, *, seed: int) -> None:
        """`text`: uint8 (bytes,). Raises UserError where it is shorter than one window."""
        self.text = text
        self.context = context
        self.count = (len(text) - 1) // context
        self._seed = seed
        if self.count < 1:
            raise UserError(
                f"{len(text):,} bytes of text do not fill one window of {context} + 1",
                hint="give more text with --data, or a smaller --context",
            )

    def position(self, sample: int) -> int:
        """Index of the window that sample number `sample` takes."""
        epoch, index = divmod(sample, self.count)
        return permuted(index, self.count, f"{self._seed}/{epoch}".encode())

    def batch(self, samples: range, *, shuffle: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of these samples: int64, (samples, context) each, on the CPU."""
        windows = [self.position(sample) if shuffle else sample for sample in samples]
        starts = torch.tensor(windows).unsqueeze(1) * self.context
        bytes_ = self.text[starts + torch.arange(self.context + 1)].long()
        return bytes_[:, :-1].contiguous(), bytes_[:, 1:].contiguous()


def samples_of(
    step: int, micro: int, rank: int, *, micro_batch: int, accumulation: int, world_size: int
) -> range:
    """Numbers of the samples that `rank` takes in micro batch `micro` of `step`, all from 0.

    Over ranks, micro batches and steps the ranges cover every number once, and one step covers
    the same numbers however its batch is divided.
    """
    per_rank = micro_batch * accumulation
    first = (step * world_size + rank) * per_rank + micro * micro_batch
    return range(first, first + micro_batch)
