"""Text out of a model, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from orchestrator.errors import UserError
from orchestrator.training.language.byte_model import ByteTransformer
from orchestrator.training.language.tokenizers import Tokenizer


@dataclass(frozen=True)
class Sampler:
    """How the next token is drawn from the logits."""

    temperature: float = 0.8
    """Divides the logits; 0 always takes the likeliest token."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together reach this chance (Holtzman et al. 2020)."""

    def draw(self, logits: torch.Tensor, generator: torch.Generator) -> int:
        """`logits`: (vocabulary,), on the generator's device."""
        if self.temperature == 0:
            return int(logits.argmax())
        chances = torch.softmax(logits.float() / self.temperature, dim=-1)
        if self.top_p < 1:
            chances = nucleus(chances, self.top_p)
        return int(torch.multinomial(chances, 1, generator=generator))


def nucleus(chances: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the likeliest tokens that together reach `top_p`; at least one is left."""
    ordered, places = chances.sort(descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = ordered.masked_fill(before >= top_p, 0.0)
    return torch.zeros_like(chances).scatter(-1, places, kept)


def continued(
    model: nn.Module,
    tokens: Sequence[int],
    length: int,
    *,
    sampler: Sampler,
    seed: int,
    end: int | None = None,
) -> list[int]:
    """Up to `length` tokens that follow `tokens` (at least one), the same for the same seed.

    `model` is a ByteTransformer or what AutoModelForCausalLM makes, whole and on one device.
    Fewer come where it draws `end`.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    reader: Reader = Windowed(model) if isinstance(model, ByteTransformer) else Cached(model)
    fresh = torch.tensor([list(tokens)], device=device)
    drawn: list[int] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            while len(drawn) < length:
                token = sampler.draw(reader.logits(fresh), generator)
                if token == end:
                    break
                drawn.append(token)
                fresh = fresh.new_tensor([[token]])
    finally:
        model.train(was_training)
    return drawn


def sampled_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    *,
    seed: int,
    sampler: Sampler = Sampler(),
) -> str:
    """`prompt` continued by up to `length` tokens; safe to show on a terminal.

    Raises UserError for a prompt without a token.
    """
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    tokens = [int(token) for token in tokenizer.encode([prompt])[0]]
    if not begin + tokens:
        raise UserError("the prompt is empty", hint="give a first word with --prompt")
    drawn = continued(model, begin + tokens, length, sampler=sampler, seed=seed, end=tokenizer.end)
    # Decoded together: a character may begin in the prompt's last token.
    return printable(tokenizer.decode(tokens + drawn))


class Reader(Protocol):
    """Reads a text piece by piece, however long it gets."""

    def logits(self, fresh: torch.Tensor) -> torch.Tensor:
        """Of the token after `fresh`, int64 (1, time), which follows what was read before:
        (vocabulary,)."""


class Windowed:
    """Reads the last `context` bytes anew for each token."""

    def __init__(self, model: ByteTransformer) -> None:
        self._model = model
        self._text: torch.Tensor | None = None

    def logits(self, fresh: torch.Tensor) -> torch.Tensor:
        text = fresh if self._text is None else torch.cat((self._text, fresh), dim=1)
        self._text = text[:, -self._model.context :]
        found: torch.Tensor = self._model(self._text)[0, -1]
        return found


class Cached:
    """Keeps keys and values of what a model of transformers has read. Where its longest context
    is full it forgets all but the later half."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._longest = getattr(model.config, "max_position_embeddings", None)
        self._text: torch.Tensor | None = None
        self._seen = 0
        self._cache: Any = None

    def logits(self, fresh: torch.Tensor) -> torch.Tensor:
        self._text = fresh if self._text is None else torch.cat((self._text, fresh), dim=1)
        if self._longest is not None and self._seen + fresh.shape[1] > self._longest:
            fresh = self._text = self._text[:, -max(1, self._longest // 2) :]
            self._seen, self._cache = 0, None
        output = self._model(input_ids=fresh, past_key_values=self._cache, use_cache=True)
        self._seen, self._cache = self._seen + fresh.shape[1], output.past_key_values
        found: torch.Tensor = output.logits[0, -1]
        return found


def printable(text: str) -> str:
    """`text` with every character that could act on a terminal replaced."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)
