"""Text out of a model, to see that training did something."""

from __future__ import annotations

import torch

from orchestrator.training.language.byte_model import ByteTransformer


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
