"""Tied embeddings in a pipeline: the first and the last stage each hold a copy."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from orchestrator.training.engines.decoder import Decoder


class TiedCopies:
    """Two copies of one matrix, which start equal, get equal gradients and so stay equal."""

    def __init__(self, decoder: Decoder, stages: dist.ProcessGroup) -> None:
        """`decoder` has been cut; `stages` joins the ranks that hold its pieces."""
        self._decoder, self._stages = decoder, stages

    @property
    def _copy(self) -> nn.Parameter | None:
        decoder = self._decoder
        if not decoder.tied or decoder.has_first == decoder.has_last:
            return None  # in the middle, or of a single stage
        holder: nn.Module = decoder.embedding if decoder.has_first else decoder.head
        return holder.get_parameter("weight")

    def add_gradients(self) -> None:
        """Give both copies the sum of their gradients. All ranks of `stages` call it together."""
        copy = self._copy
        if copy is None or copy.grad is None:  # frozen, and then both are
            return
        own = copy.grad.to_local() if isinstance(copy.grad, DTensor) else copy.grad
        other = torch.empty_like(own)
        peer = self._stages.size() - 1 - self._stages.rank()
        # Between the two alone: a collective would make the stages between wait and hold a buffer.
        exchange = [
            dist.P2POp(dist.isend, own, group=self._stages, group_peer=peer),
            dist.P2POp(dist.irecv, other, group=self._stages, group_peer=peer),
        ]
        for work in dist.batch_isend_irecv(exchange):
            work.wait()
        own += other

    def counted_elsewhere(self) -> list[nn.Parameter]:
        """The copy of the last stage, which norms leave out: the first stage's is the same."""
        copy = self._copy
        return [copy] if copy is not None and self._decoder.has_last else []
