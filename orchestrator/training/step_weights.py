"""How many targets each step has over all ranks, known before the step needs it."""

from __future__ import annotations

from collections import deque

import torch
import torch.distributed as dist

from orchestrator.training.layout import Layout


class StepWeights:
    """The sum over data ranks of each step's weights, in the order of the steps.

    Asked for a step ahead: the exchange, on the CPU, has a whole step to arrive.
    """

    def __init__(self, layout: Layout, world_size: int, *, uniform: bool) -> None:
        """With `uniform` every sample has as many targets as another, and nobody need ask."""
        self._uniform = uniform
        self._data_size = layout.data_size
        # Ranks that share a model count the same samples.
        self._copies = world_size / layout.data_size
        self._asked: deque[tuple[torch.Tensor, dist.Work | None]] = deque()

    def ask(self, mine: int) -> None:
        """Start summing a step's weight, of which this rank has `mine`; all ranks call it."""
        total = torch.tensor(float(mine), dtype=torch.float64)
        work = None if self._uniform else dist.all_reduce(total, async_op=True)
        self._asked.append((total, work))

    def take(self) -> float:
        """The oldest step's sum that was asked for; at least 1, since losses are divided by it."""
        total, work = self._asked.popleft()
        if work is None:
            return max(1.0, total.item() * self._data_size)
        work.wait()
        return max(1.0, total.item() / self._copies)

    def close(self) -> None:
        """Take in what is in flight, before the group ends."""
        while self._asked:
            self.take()
