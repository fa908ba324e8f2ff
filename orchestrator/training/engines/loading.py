"""Where a model's weights are made before the engine spreads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


@contextmanager
def loading(plan: TrainingPlan, rank: Rank) -> Iterator[bool]:
    """Build the model inside. Yields whether this rank must fill in real weights.

    Where it need not (the engine takes rank 0's), the model is built on the meta device, so that
    eight ranks of a node do not hold eight copies of it in host memory. With ZeRO 3 each
    parameter is cut as soon as it is made.
    """
    strategy = plan.strategy
    if strategy.name == "zero" and strategy.stage == 3:
        from orchestrator.training.engines.zero import zero_init

        with zero_init(plan):
            yield True
    elif _takes_rank_0s(plan) and not rank.is_main:
        with torch.device("meta"):
            yield False
    else:
        yield True


def _takes_rank_0s(plan: TrainingPlan) -> bool:
    """Whether `build_engine` makes an FsdpEngine or a PipelineEngine."""
    strategy = plan.strategy
    cut = strategy.tensor_parallel > 1 or strategy.pipeline_parallel > 1
    return strategy.name == "fsdp" or (strategy.name == "ddp" and cut)
