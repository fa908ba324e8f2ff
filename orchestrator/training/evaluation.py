"""How good a model is on samples that it has not been trained on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.distributed as dist

from orchestrator.training.agent_files import AgentFiles
from orchestrator.training.agreement import agree
from orchestrator.training.batch import Batch, Dataset
from orchestrator.training.engines.base import Engine
from orchestrator.training.layout import Layout
from orchestrator.training.memory.shortage import is_out_of_memory

Observer = Callable[[torch.Tensor, Batch], None]
"""Called with the logits of a batch and the batch itself, on ranks that own their loss."""


class HeldOut(NamedTuple):
    """One evaluation during training, the same on all ranks."""

    loss: float
    """In nats a target."""
    accuracy: float | None = None
    """Share of held-out samples whose class was found, where there are classes."""
    train_accuracy: float | None = None
    """The same of samples that were trained on."""


Evaluate = Callable[[], float | HeldOut]
"""Held-out loss in nats a target, with accuracies or alone; the same on all ranks, which call it
together."""


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
    Raises TrainingFailed, on all ranks, where one of them cannot read a sample.
    """
    each = layout.data_size * micro_batch
    passes = -(-len(dataset) // each)
    if batches is not None:
        passes = min(passes, batches)
    losses: list[torch.Tensor] = []
    weight = 0
    files = AgentFiles.of(os.environ, int(os.environ.get("LOCAL_RANK") or 0))
    for batch in _together(dataset, [_share(n, each, micro_batch, layout) for n in range(passes)]):
        files.touch()  # a long evaluation is no hang
        part, logits = engine.evaluate(batch, want_logits=observe is not None)
        if layout.owns_loss:
            losses.append(part)
            weight += batch.weight
            if observe is not None and logits is not None and batch.weight:
                observe(logits, batch)
    loss = torch.stack(losses).double().sum().item() if losses else 0.0
    sums = torch.tensor([loss, weight], dtype=torch.float64)
    dist.all_reduce(sums)
    return (sums[0] / sums[1].clamp(min=1)).item()


def _share(number: int, each: int, micro_batch: int, layout: Layout) -> range:
    """Samples of this data rank in pass `number`; past the end of the data, where `_read` stops."""
    first = number * each + layout.data_rank * micro_batch
    return range(first, first + micro_batch)


def _together(dataset: Dataset, shares: Sequence[range]) -> Iterator[Batch]:
    """A batch for each share. Where this rank cannot read one it goes on with batches that do not
    count, and says so at the end, when all ranks raise: a first one must be there for that."""
    failure: BaseException | None = None
    spare: Batch | None = None
    for read in _ahead(dataset, shares):
        failure = failure or read.exception()
        if failure is not None and is_out_of_memory(failure):
            raise failure
        if spare is None:
            agree(failure)
            spare = read.result().ignored()
        yield spare if failure else read.result()
    agree(failure)


def _ahead(dataset: Dataset, shares: Iterable[range]) -> Iterator[Future[Batch]]:
    """Each share as it is read, with the next being read in a thread meanwhile."""
    before: Future[Batch] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="evaluation") as thread:
        for share in shares:
            ahead = thread.submit(_read, dataset, share)
            if before is not None:
                yield before
            before = ahead
        if before is not None:
            yield before


def _read(dataset: Dataset, share: range) -> Batch:
    within = range(share.start, min(share.stop, len(dataset)))
    return dataset.take(within) if within else dataset.take([0]).ignored()
