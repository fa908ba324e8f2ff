"""Which sample is whose, computed from the sample's number alone.

Nothing is stored, so the position in the data is one integer, whatever the world size.
"""

from __future__ import annotations

import hashlib

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


class Shuffle:
    """Samples numbered without end: each epoch is another shuffle of range(size)."""

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self._seed = seed

    def position(self, sample: int) -> int:
        """Which of the `size` samples is number `sample` (from 0)."""
        epoch, index = divmod(sample, self.size)
        return permuted(index, self.size, f"{self._seed}/{epoch}".encode())


def samples_of(
    step: int, micro: int, data_rank: int, *, micro_batch: int, accumulation: int, data_size: int
) -> range:
    """Numbers of the samples that `data_rank` takes in micro batch `micro` of `step`, all from 0.

    Over data ranks, micro batches and steps the ranges cover every number once, and one step covers
    the same numbers however its batch is divided.
    """
    per_rank = micro_batch * accumulation
    first = (step * data_size + data_rank) * per_rank + micro * micro_batch
    return range(first, first + micro_batch)
