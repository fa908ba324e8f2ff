"""The same training by the Hugging Face Trainer."""

from __future__ import annotations

import tempfile

import torch
import torch.distributed as dist
from torch import nn
from transformers import Trainer, TrainingArguments

from orchestrator.training.language.windows import Windows
from peers.task import Ordered, StepClock, Task, adamw, mean_loss


class WithLoss(nn.Module):
    """The Trainer wants the loss from the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": mean_loss(self.model, tokens, targets)}


def collate(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    tokens, targets = zip(*samples, strict=True)
    return {"tokens": torch.stack(tokens), "targets": torch.stack(targets)}


def train(task: Task, windows: Windows) -> tuple[nn.Module, StepClock]:
    samples = task.all_steps * task.micro_batch * dist.get_world_size()
    model = task.model()
    optimizer = adamw(model, task)
    clock = StepClock(optimizer)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            max_steps=task.all_steps,
            per_device_train_batch_size=task.micro_batch,
            max_grad_norm=task.clip,
            logging_steps=task.report_every,
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,
            dataloader_pin_memory=False,
            train_sampling_strategy="sequential",  # the samples have been shuffled
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        Trainer(
            WithLoss(model),
            settings,
            data_collator=collate,
            train_dataset=Ordered(windows, samples=samples, seed=task.seed),
            optimizers=(optimizer, constant),
        ).train()
    return model, clock
