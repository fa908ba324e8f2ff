"""The trackers that a spec's `logging` section asks for."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from orchestrator.spec.policies import Logging
from orchestrator.training.errors import NotSupported
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.trackers.base import Tracker


def require_packages(logging: Logging) -> None:
    """Raise NotSupported where a tracker is asked for that is not installed here."""
    for name, wanted in (("tensorboard", logging.tensorboard), ("wandb", logging.wandb)):
        if wanted and find_spec(name) is None:
            raise NotSupported(
                f"logging.{name} is on and the package {name} is not installed",
                hint="pip install 'ptx[track]'",
            )


def open_trackers(plan: TrainingPlan, warn: Callable[[str], None]) -> list[Tracker]:
    """Rank 0's; `warn` takes what goes wrong later, a line at a time."""
    trackers: list[Tracker] = []
    if plan.logging.tensorboard:
        from orchestrator.training.trackers.tensorboard import TensorBoard

        trackers.append(TensorBoard(plan, warn))
    if plan.logging.wandb:
        from orchestrator.training.trackers.wandb import WeightsAndBiases

        trackers.append(WeightsAndBiases(plan, warn))
    return trackers
