"""How good a model is on samples that it has not been trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from orchestrator.training.batch import Batch, Dataset
from orchestrator.training.engines.base import Engine
from orchestrator.training.layout import Layout

Observer = Callable[[torch.Tensor, Batch], None]
"""Called with the logits of a batch and the batch itself, on ranks that own their loss."""


def evaluate(
    engine: Engine,
    dataset: Dataset,
    layout: Layout,
    *,
    micro_batch: int,
    batches: int | None = None,
    observe: Observer | None = None,
) -> float:
    """Mean loss in nats a target, the same on all ranks; all must call it.

    The data ranks take different samples in order, up to `batches` micro batches each (None: all
    samples once). Every rank does as many passes as the others, the last ones for show where its
    samples have run out: sharded models need all ranks in every pass.
    """
    each = layout.data_size * micro_batch
    passes = -(-len(dataset) // each)
    if batches is not None:
        passes = min(passes, batches)
    loss, weight = 0.0, 0
    for number in range(passes):
        first = number * each + layout.data_rank * micro_batch
        indices = range(first, min(first + micro_batch, len(dataset)))
        batch = dataset.take(indices) if indices else dataset.take([0]).ignored()
        part, logits = engine.evaluate(batch, want_logits=observe is not None)
        if layout.owns_loss:
            loss += part.item()
            weight += batch.weight
            if observe is not None and logits is not None and indices:
                observe(logits, batch)
    sums = torch.tensor([loss, weight], dtype=torch.float64)
    dist.all_reduce(sums)
    return (sums[0] / sums[1].clamp(min=1)).item()
