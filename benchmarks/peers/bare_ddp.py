"""A training loop as one writes it by hand: torch, DistributedDataParallel, nothing else."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from orchestrator.training.language.windows import Windows
from peers.task import Ordered, StepClock, Task, adamw, mean_loss


def train(task: Task, windows: Windows) -> tuple[nn.Module, StepClock]:
    samples = task.all_steps * task.micro_batch * dist.get_world_size()
    data = Ordered(windows, samples=samples, seed=task.seed)
    loader = DataLoader(
        data, batch_size=task.micro_batch, sampler=DistributedSampler(data, shuffle=False)
    )
    model = task.model()
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    optimizer = adamw(ddp, task)
    clock = StepClock(optimizer)
    for step, (tokens, targets) in enumerate(loader, 1):
        loss = mean_loss(ddp, tokens, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(ddp.parameters(), task.clip)
        optimizer.step()
        optimizer.zero_grad()
        if step % task.report_every == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    return model, clock
