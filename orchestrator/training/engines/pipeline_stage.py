"""One pipeline stage: a run of a decoder's layers, and what stands before and after them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from orchestrator.training.batch import Batch
from orchestrator.training.engines.decoder import Decoder
from orchestrator.training.errors import NotSupported
from orchestrator.training.objective import Objective, apply

Layer = Callable[[torch.Tensor], torch.Tensor]


def layer_counts(layers: int, stages: int, head: float) -> list[int]:
    """How many layers each stage takes, so that the slowest is as fast as it can be.

    `head` is the cost of the output layer, which the last stage computes too, in layers.
    Raises NotSupported where a stage would have none.
    """
    if layers < stages:
        raise NotSupported(
            f"strategy.pipeline_parallel is {stages}, and the model has {layers} layers to cut",
            hint="each stage needs a layer: lower pipeline_parallel",
        )
    before = stages - 1
    if before == 0:
        return [layers]

    def counts(last: int) -> list[int]:
        each, more = divmod(layers - last, before)
        return [each + (stage < more) for stage in range(before)] + [last]

    def cost(last: int) -> tuple[float, float]:
        costs = [*counts(last)[:-1], last + head]
        return max(costs), sum(one * one for one in costs)  # then as even as can be

    return counts(min(range(1, layers - before + 1), key=cost))


def cut(decoder: Decoder, stage: int, stages: int, lay_out: Layer) -> range:
    """Leave of a model what `stage` computes, in place; return the numbers of its layers.

    Parameters keep their names. Hidden states enter through an `Entrance` (with `lay_out`) where
    the embedding was, and leave as they are where norm and output layer were. The trunk's own
    forward stays, with its rotary positions and masks.
    """
    layer = next(iter(decoder.layers))
    head = _size(decoder.head) / _size(layer)
    counts = layer_counts(len(decoder.layers), stages, head)
    own = range(sum(counts[:stage]), sum(counts[: stage + 1]))
    for number in range(len(decoder.layers)):
        if number not in own:
            delattr(decoder.layers, str(number))
    if stage > 0:
        decoder.trunk.embed_tokens = Entrance(lay_out)
    if stage < stages - 1:
        decoder.trunk.norm = nn.Identity()
        decoder.owner.lm_head = nn.Identity()
    return own


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Entrance(nn.Module):
    """In the embedding's place: gives what the stage before has sent, whatever the tokens."""

    def __init__(self, lay_out: Layer) -> None:
        super().__init__()
        self.hidden: torch.Tensor | None = None
        self._lay_out = lay_out

    def forward(self, _tokens: torch.Tensor) -> torch.Tensor:
        if self.hidden is None:
            raise RuntimeError("a stage was called before it was given hidden states")
        hidden, self.hidden = self.hidden, None
        return self._lay_out(hidden)


@runtime_checkable
class Staged(Protocol):
    """What an objective must offer to be cut: its model's trunk called as its loss needs it."""

    def hidden_states(
        self, inputs: dict[str, torch.Tensor], extras: dict[str, int]
    ) -> torch.Tensor:
        """(batch, time, dim)."""


class Stage(nn.Module):
    """Called with the number of a micro batch and, from the second stage on, hidden states.

    Every stage has the micro batches themselves: only hidden states travel.
    """

    def __init__(
        self,
        objective: Objective,
        decoder: Decoder,
        *,
        dtype: torch.dtype,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """`decoder` has been cut; `dtype` is that of the hidden states between stages."""
        super().__init__()
        if not isinstance(objective, Staged):
            raise NotSupported(
                f"pipeline parallelism trains language models, and {type(objective).__name__} "
                "does not say what its hidden states are",
                hint="train with strategy ddp, fsdp or zero alone",
            )
        self.objective, self.dtype, self.last = objective, dtype, decoder.has_last
        self._decoder, self._autocast = decoder, autocast
        self._batches: Sequence[Batch] = ()
        self._want_logits = False
        self.losses: list[torch.Tensor] = []
        """Of the last stage: summed loss of each micro batch, detached."""
        self.logits: torch.Tensor | None = None
        """Of the last stage's last micro batch, if wanted."""

    def load(self, batches: Sequence[Batch], *, want_logits: bool = False) -> None:
        """Take the micro batches of the next run, which are on the right device."""
        self._batches, self._want_logits = batches, want_logits
        self.losses, self.logits = [], None

    def forward(self, *received: torch.Tensor, micro: torch.Tensor) -> torch.Tensor:
        """micro: int64 (1,) on the CPU. Hidden states (batch, time, dim), or the summed loss."""
        batch = self._batches[int(micro)]
        entrance = self._decoder.trunk.embed_tokens
        if isinstance(entrance, Entrance):
            (entrance.hidden,) = received
        with self._autocast():
            if self.last:
                loss, self.logits = apply(self.objective, batch, want_logits=self._want_logits)
                self.losses.append(loss.detach())
                return loss
            hidden = self.objective.hidden_states(batch.inputs, batch.extras)
        if isinstance(hidden, DTensor):
            hidden = hidden.to_local()
        return hidden.to(self.dtype)
