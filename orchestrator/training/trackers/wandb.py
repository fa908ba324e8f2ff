"""Metrics sent to Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import wandb

from orchestrator.training.plan import TrainingPlan
from orchestrator.training.trackers.base import Tracker


class WeightsAndBiases(Tracker):
    """One run there for one run of ptx, under the same id: a later attempt continues it.

    WANDB_* variables are wandb's own and win (WANDB_PROJECT, WANDB_MODE=offline, ...). Where its
    service cannot be reached the numbers are kept below the run folder, for `wandb sync`.
    """

    def __init__(self, plan: TrainingPlan, warn: Callable[[str], None]) -> None:
        self._warn = warn
        options = _options(plan)
        self._run: Any = self._kept(
            lambda: wandb.init(**options), "cannot be reached, so its files stay here"
        )
        if self._run is None:
            self._run = self._kept(lambda: _offline(options), "gets no numbers at all")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        run = self._run
        if run is not None:
            self._kept(lambda: run.log(dict(numbers), step=step), "gets no more numbers")

    def close(self, *, failed: bool) -> None:
        run = self._run
        if run is not None:
            self._kept(lambda: run.finish(exit_code=int(failed)), "may lack the last numbers")

    def _kept(self, work: Callable[[], Any], consequence: str) -> Any:
        try:
            return work()
        except Exception as error:  # its own, its helper process's, its libraries': not training's
            line = str(error).partition("\n")[0] or type(error).__name__
            self._warn(f"Weights & Biases {consequence}: {line}")
            self._run = None
            return None


def _options(plan: TrainingPlan) -> dict[str, Any]:
    """Of wandb.init; what a variable of the environment says is left to it."""
    folder = plan.run_dir or Path()
    folder.mkdir(parents=True, exist_ok=True)
    run_id = os.environ.get("PTX_RUN_ID") or (plan.run_dir.name if plan.run_dir else None)
    ours = {
        "WANDB_PROJECT": {"project": "ptx"},
        "WANDB_DIR": {"dir": str(folder)},
        "WANDB_RUN_ID": {"id": run_id} if run_id else {},
        "WANDB_RESUME": {"resume": "allow"} if run_id else {},
        "WANDB_NAME": {"name": run_id} if run_id else {},
    }
    config = {
        "world_size": plan.world_size,
        "global_batch": plan.global_batch,
        "strategy": plan.strategy.model_dump(),
        "training": plan.training.model_dump(),
    }
    options: dict[str, Any] = {"config": config}
    for variable, option in ours.items():
        if variable not in os.environ:
            options |= option
    return options


def _offline(options: dict[str, Any]) -> Any:
    wandb.teardown()  # its helper process would take the run's id for one in use
    return wandb.init(**options, mode="offline")
