"""The same training by Lightning Fabric."""

from __future__ import annotations

import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from orchestrator.training.language.windows import Windows
from peers.task import Ordered, StepClock, Task, adamw, mean_loss


def train(task: Task, windows: Windows) -> tuple[nn.Module, StepClock]:
    ranks = dist.get_world_size()
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(),
        gradient_as_bucket_view=True,
        broadcast_buffers=False,
    )
    fabric = Fabric(accelerator="cpu", devices=ranks, strategy=strategy)
    fabric.launch()
    data = Ordered(windows, samples=task.all_steps * task.micro_batch * ranks, seed=task.seed)
    loader = fabric.setup_dataloaders(DataLoader(data, batch_size=task.micro_batch))
    model = task.model()
    optimizer = adamw(model, task)
    clock = StepClock(optimizer)
    parallel, wrapped = fabric.setup(model, optimizer)
    for step, (tokens, targets) in enumerate(loader, 1):
        loss = mean_loss(parallel, tokens, targets)
        fabric.backward(loss)
        fabric.clip_gradients(parallel, wrapped, max_norm=task.clip, error_if_nonfinite=False)
        wrapped.step()
        wrapped.zero_grad()
        if step % task.report_every == 0:
            fabric.print(f"step {step} loss {loss.item():.4f}")
    return model, clock
