"""The order in which a stage computes and sends, by PyTorch's pipelining."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

Shape = tuple[int, ...]


class Schedules:
    """Runs micro batches through a stage: one forward, one backward (Narayanan et al. 2019,
    PipeDream-flush), or all forward first where micro batches are fewer than stages.

    PyTorch's schedules hold buffers of one shape; they are made anew when the shape changes,
    which all stages see in their own copy of the batches.
    """

    def __init__(
        self,
        module: nn.Module,
        group: dist.ProcessGroup,
        device: torch.device,
        dtype: torch.dtype,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        """`module` is called with the number of a micro batch and, but for the group's first
        rank, hidden states of `dtype`; `loss` makes of what the last one returns what is
        differentiated."""
        self._module, self._group, self._device, self._dtype = module, group, device, dtype
        self._loss = loss
        self._made: dict[bool, tuple[tuple[int, Shape], Schedule1F1B | ScheduleGPipe]] = {}

    def run(self, count: int, shape: Shape, *, backward: bool) -> None:
        """`count` micro batches with hidden states of `shape`, on all stages together.

        Raises what the module raises.
        """
        schedule = self._schedule(count, shape, backward)
        numbers = torch.arange(count)
        target = torch.zeros(count) if backward else None
        try:
            schedule.step(target=target, return_outputs=False, micro=numbers)
        except RuntimeError as error:  # PyTorch wraps whatever a stage raises
            if error.__cause__ is None:
                raise
            raise error.__cause__ from None

    def _schedule(self, count: int, shape: Shape, backward: bool) -> Schedule1F1B | ScheduleGPipe:
        key = count, shape
        made_for, schedule = self._made.get(backward, (None, None))
        if schedule is None or made_for != key:
            self._made.pop(backward, None)  # its buffers go before the new ones come
            schedule = self._new(count, shape, backward)
            self._made[backward] = key, schedule
        return schedule

    def _new(self, count: int, shape: Shape, backward: bool) -> Schedule1F1B | ScheduleGPipe:
        index, stages = self._group.rank(), self._group.size()
        # Stages told their shapes need no trial run to find them.
        hidden = torch.empty(shape, dtype=self._dtype, device="meta", requires_grad=True)
        stage = PipelineStage(
            self._module,
            index,
            stages,
            self._device,
            input_args=(hidden,) if index > 0 else (),
            output_args=(hidden,),
            group=self._group,
        )
        kind = Schedule1F1B if count >= stages else ScheduleGPipe
        # Gradients are those of a sum, and the loss function has weighted it.
        return kind(stage, count, self._loss if backward else None, scale_grads=False)
