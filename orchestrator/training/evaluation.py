"""What a trained model can do: held-out loss, and a sample of its text."""

from __future__ import annotations

import torch
import torch.distributed as dist

from orchestrator.training.loop import Trainer
from orchestrator.training.model import ByteTransformer, next_byte_loss
from orchestrator.training.precision import autocast
from orchestrator.training.sampling import Windows


@torch.no_grad()
def heldout_loss(trainer: Trainer, heldout: Windows, batches: int) -> float:
    """Mean loss in nats a byte over up to `batches` micro batches a rank, the same on all ranks.

    The ranks take different windows, in the order of the text. All ranks must call it.
    """
    rank, size = trainer.rank, trainer.settings.micro_batch
    total, count = 0.0, 0
    trainer.model.eval()
    for batch in range(batches):
        first = (batch * rank.world_size + rank.rank) * size
        windows = range(first, min(first + size, heldout.count))
        if windows:
            inputs, targets = heldout.batch(windows, shuffle=False)
            with autocast(trainer.settings, rank.device):
                logits = trainer.model(inputs.to(rank.device))
            total += next_byte_loss(logits, targets.to(rank.device)).item() * len(windows)
            count += len(windows)
    trainer.model.train()
    sums = torch.tensor([total, count], dtype=torch.float64)
    dist.all_reduce(sums)
    return (sums[0] / sums[1]).item()


@torch.no_grad()
def sampled_text(
    model: ByteTransformer, prompt: str, length: int, *, seed: int, temperature: float = 0.8
) -> str:
    """Continue `prompt` by `length` bytes drawn from the model, one byte a forward pass.

    What is no UTF-8, or could act on a terminal, shows as a replacement character.
    """
    device = model.embedding.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    text = torch.tensor([list(prompt.encode())], device=device)
    for _ in range(length):
        logits = model(text[:, -model.context :])[:, -1].float()
        chances = torch.softmax(logits / temperature, dim=-1)
        text = torch.cat((text, torch.multinomial(chances, 1, generator=generator)), dim=1)
    decoded = bytes(text[0].tolist()).decode(errors="replace")
    return "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in decoded)
