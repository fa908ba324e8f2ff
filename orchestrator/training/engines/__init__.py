"""One way of spreading a model over ranks is one file here and one branch below."""

from __future__ import annotations

from orchestrator.training.engines.base import Engine
from orchestrator.training.flops import shape_of
from orchestrator.training.layout import Layout
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


def build_engine(objective: Objective, plan: TrainingPlan, rank: Rank, layout: Layout) -> Engine:
    """Spread `objective` as the plan's strategy says; all ranks call it together."""
    shape = shape_of(objective)  # of the whole model, while it is still in one piece
    engine = _engine(objective, plan, rank, layout)
    engine.shape = shape
    return engine


def _engine(objective: Objective, plan: TrainingPlan, rank: Rank, layout: Layout) -> Engine:
    """Engines are imported here, on demand: DeepSpeed alone takes seconds."""
    strategy = plan.strategy
    if strategy.pipeline_parallel > 1:
        from orchestrator.training.engines.pipeline import PipelineEngine

        return PipelineEngine(objective, plan, rank, layout)
    if strategy.name == "zero":
        from orchestrator.training.engines.zero import ZeroEngine

        return ZeroEngine(objective, plan, rank, layout)
    if strategy.name == "fsdp" or strategy.tensor_parallel > 1:
        from orchestrator.training.engines.fsdp import FsdpEngine

        return FsdpEngine(objective, plan, rank, layout)
    if plan.training.local_sgd is not None:
        from orchestrator.training.engines.local_sgd import LocalSgdEngine

        return LocalSgdEngine(objective, plan, rank, layout)
    from orchestrator.training.engines.ddp import DdpEngine

    return DdpEngine(objective, plan, rank, layout)
