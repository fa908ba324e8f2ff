"""How long each rank needs by itself, without what it waits for others: who holds up whom.

A step takes all ranks equally long, since they wait for each other in its collectives. What tells
them apart is the time in `forward`, where some strategies have no collective, and the time for
reading a rank's own data.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from torch import nn

from orchestrator.training.layout import Layout
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.vision.batch_norm import GlooBatchNorm

SLOWEST = 8
"""So many are reported."""
_LARGEST = 1024
"""Pairs of CUDA events between two reports; beyond it the mean of these stands for all."""


def reason_against(objective: nn.Module, plan: TrainingPlan, layout: Layout) -> str | None:
    """Why a rank's time in `forward` would hold time in which it waits for others; None where it
    does not."""
    strategy = plan.strategy
    if layout.pipeline > 1:
        return "the stages of a pipeline wait for each other"
    if layout.tensor > 1:
        return "ranks that share tensors wait for each other inside forward"
    if strategy.name == "fsdp":
        return "fsdp gathers parameters inside forward"
    if strategy.name == "zero" and strategy.stage == 3:
        return "zero 3 gathers parameters inside forward"
    if any(isinstance(module, nn.SyncBatchNorm | GlooBatchNorm) for module in objective.modules()):
        return "batch norms wait for the statistics of all ranks inside forward"
    return None


class RankTimes:
    """Seconds that this rank's `forward` takes in training, from entering to leaving this.

    On a GPU two events are put into its stream around each forward pass and read at reports, when
    the device is waited for anyhow.
    """

    def __init__(
        self, objective: nn.Module, plan: TrainingPlan, rank: Rank, layout: Layout
    ) -> None:
        self.reason = reason_against(objective, plan, layout)
        self._objective = objective
        self._on_gpu = rank.device.type == "cuda"
        self._hooks: list[Any] = []
        self._begun: float | torch.cuda.Event = 0.0
        self._passes, self._seconds = 0, 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> RankTimes:
        if self.reason is None:
            self._hooks = [
                self._objective.register_forward_pre_hook(self._begin),
                self._objective.register_forward_hook(self._end),
            ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def lap(self) -> float:
        """Seconds since the last lap, or the start. The device must have done all of it."""
        seconds = self._seconds
        if self._events:
            measured = sum(begun.elapsed_time(ended) for begun, ended in self._events) / 1000
            seconds = measured * self._passes / len(self._events)
        self._passes, self._seconds, self._events = 0, 0.0, []
        return seconds

    def _begin(self, module: nn.Module, _arguments: object) -> None:
        if not module.training:
            return
        if not self._on_gpu:
            self._begun = time.perf_counter()
        elif len(self._events) < _LARGEST:
            self._begun = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._begun.record()

    def _end(self, module: nn.Module, _arguments: object, _result: object) -> None:
        if not module.training:
            return
        self._passes += 1
        if isinstance(self._begun, float):
            self._seconds += time.perf_counter() - self._begun
        elif len(self._events) < _LARGEST:
            ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            ended.record()
            self._events.append((self._begun, ended))


def summary(own: torch.Tensor, steps: int, *, forward: bool) -> dict[str, Any]:
    """What is reported of `own`, (3, ranks): each rank's seconds in forward, waiting for data and
    reading it, over `steps` steps. `forward`: whether the first row is known.

    While one rank waits for data the others wait for that rank, and read meanwhile: by waiting
    alone a rank looks slow whose data is as slow as everybody's. So only what reading takes it
    longer than the median counts as its own.
    """
    computing, waited, reading = own / steps
    usual = reading.median()
    found: dict[str, Any] = {
        "data_wait_longest": round(float(waited.max()), 6),
        "data_read_median": round(float(usual), 6),
    }
    if not forward:
        return found
    data = torch.minimum(waited, (reading - usual).clamp(min=0))
    each = computing + data
    most = each.topk(min(SLOWEST, len(each)))
    rows = zip(most.indices.tolist(), most.values.tolist(), strict=True)
    found["slow_ranks"] = tuple(
        (rank, round(seconds, 6), round(float(data[rank]), 6)) for rank, seconds in rows
    )
    found["rank_seconds_median"] = round(float(each.median()), 6)
    return found
