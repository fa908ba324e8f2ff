"""What every contender trains: one model, one order of samples, one optimizer, one clock."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from orchestrator.training.language.byte_model import ByteTransformer
from orchestrator.training.language.windows import Windows
from orchestrator.training.sampling import Shuffle


@dataclass(frozen=True)
class Task:
    """The quickstart's model and data. Sizes are in samples of `context` bytes."""

    warm_up: int = 5
    steps: int = 20
    """That are timed, after `warm_up` others."""
    context: int = 128
    dim: int = 96
    layers: int = 4
    heads: int = 4
    micro_batch: int = 8
    lr: float = 1e-3
    clip: float = 1.0
    report_every: int = 10
    seed: int = 0

    @property
    def all_steps(self) -> int:
        return self.warm_up + self.steps

    def model(self) -> ByteTransformer:
        """The same weights for every contender and rank."""
        torch.manual_seed(self.seed)
        return ByteTransformer(
            context=self.context, dim=self.dim, layers=self.layers, heads=self.heads
        )


class Ordered(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The first samples of ptx's own shuffle, one after the other, for a plain DataLoader.

    Whether ranks then take neighbouring batches or every other sample, a step's global batch
    holds the same samples, so all contenders have the same gradients.
    """

    def __init__(self, windows: Windows, *, samples: int, seed: int) -> None:
        shuffle = Shuffle(len(windows), seed=seed)
        batch = windows.take([shuffle.position(number) for number in range(samples)])
        self.tokens, self.targets = batch.inputs["tokens"], batch.targets

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 (context,) each."""
        return self.tokens[index], self.targets[index]


def adamw(model: nn.Module, task: Task) -> torch.optim.Optimizer:
    """What the spec of the ptx contender asks for, written down for the others."""
    return torch.optim.AdamW(
        model.parameters(), lr=task.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )


def mean_loss(model: nn.Module, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Nats a byte; tokens, targets: int64 (samples, context)."""
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


class StepClock:
    """When each optimizer step ended, by the hook that every torch optimizer offers.

    On CPU a step has ended when it returns. The seconds between two ends hold everything that a
    loop does: data, forward, backward, exchange, clipping, update, reports.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.ends: list[float] = []
        optimizer.register_step_post_hook(self._ended)

    def _ended(self, *_: object) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self, task: Task) -> float:
        """Of the timed steps. Raises RuntimeError where another number of steps was made."""
        if len(self.ends) != task.all_steps:
            raise RuntimeError(f"{len(self.ends)} steps were made and not {task.all_steps}")
        return self.ends[-1] - self.ends[task.warm_up - 1]


Contender = Callable[[Task, Windows], tuple[nn.Module, StepClock]]
"""Train `task.all_steps` steps in this rank; give back the bare model and its clock."""


@contextmanager
def quiet() -> Iterator[None]:
    """Reports are made and written as ever, to a file that nobody reads."""
    with Path(os.devnull).open("w") as nowhere:
        before: tuple[Any, Any] = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
