"""A small causal transformer over bytes, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from orchestrator.errors import UserError
from orchestrator.training.batch import IGNORED
from orchestrator.training.objective import Objective

VOCABULARY = 256


class Attention(nn.Module):
    """Causal multi-head attention (Vaswani et al. 2017) with rotary positions (Su et al. 2021)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(batch, time, dim) -> the same; `cos` and `sin`: (..., time, dim / heads / 2).

        `mask`: bool (batch, 1, time, time), true where a position may look; None: at all earlier.
        """
        batch, time, dim = x.shape
        qkv = self.qkv(x).view(batch, time, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            rotated(q, cos, sin), rotated(k, cos, sin), v, attn_mask=mask, is_causal=mask is None
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, time, dim))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and SwiGLU (Shazeer 2020), each behind an RMSNorm (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        hidden = 8 * dim // 3 // 16 * 16  # as many weights as a plain 4x feed-forward
        self.attention_norm = nn.RMSNorm(dim)
        self.attention = Attention(dim, heads)
        self.feed_norm = nn.RMSNorm(dim)
        self.gate_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(batch, time, dim) -> the same."""
        x = x + self.attention(self.attention_norm(x), cos, sin, mask)
        gate, up = self.gate_up(self.feed_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class ByteTransformer(nn.Module):
    """Next-byte prediction; input and output embedding are one matrix (Press and Wolf 2017)."""

    def __init__(
        self, *, context: int, dim: int, layers: int, heads: int, vocabulary: int = VOCABULARY
    ) -> None:
        """`context` is the longest input in bytes; ids from 256 to `vocabulary` stand for what is
        no byte, such as the end of a document. Raises UserError for dims that do not divide."""
        if dim % heads or dim // heads % 2:
            raise UserError(
                f"--dim {dim} does not divide into {heads} heads of an even size",
                hint=f"make --dim a multiple of {2 * heads}",
            )
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocabulary, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(dim)
        cos, sin = rotary_tables(context, dim // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(lambda module: _initialise(module, layers))

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """int64 (batch, time) with time <= context -> logits (batch, time, vocabulary).

        `positions`: int64 (batch, time), starting anew from 0 with each document of a packed
        sequence, which then attends to itself alone; None: one document.
        """
        x = self.embedding(tokens)
        cos, sin = self.get_buffer("cos"), self.get_buffer("sin")
        mask = None
        if positions is None:
            cos, sin = cos[: tokens.shape[1]], sin[: tokens.shape[1]]
        else:
            cos, sin = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)
            mask = within_documents(positions)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return F.linear(self.norm(x), self.embedding.weight)


def within_documents(positions: torch.Tensor) -> torch.Tensor:
    """Which earlier positions of its own document each may look at: bool (batch, 1, time, time)."""
    document = (positions == 0).cumsum(dim=1)
    same = document.unsqueeze(2) == document.unsqueeze(1)
    return same.tril().unsqueeze(1)


def rotary_tables(context: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of every position's angles: float32 (context, head_dim / 2) each."""
    frequencies = 10_000.0 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(context).float(), frequencies)
    return angles.cos(), angles.sin()


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (x[i], x[i + half]) by its position's angle. x: (..., time, head_dim)."""
    low, high = x.float().chunk(2, dim=-1)
    turned = torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)
    return turned.to(x.dtype)


class NextByte(Objective):
    """Cross-entropy of each next byte."""

    unit = "byte"

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        extras: dict[str, int],  # noqa: ARG002 - part of every objective's signature
        want_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """inputs["tokens"], targets: int64 (batch, time); the loss is in nats, summed.

        inputs["positions"], where there: see ByteTransformer.
        """
        positions = inputs.get("positions")
        logits = (
            self.model(inputs["tokens"])
            if positions is None
            else self.model(inputs["tokens"], positions)
        )
        loss = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, logits if want_logits else None


def _initialise(module: nn.Module, layers: int) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        # Tied to the output: larger and the first logits would be far from uniform.
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, Block):
        # The residual stream sums 2 x layers branches (Radford et al. 2019); children come first.
        for branch in (module.attention.out, module.down):
            branch.weight.data.mul_((2 * layers) ** -0.5)
