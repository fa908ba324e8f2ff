"""Which keys of a spec only ptx's training library acts on.

Only values that differ from the default count: a default says nothing about what the person
relies on.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

from orchestrator.spec.entrypoint import Entrypoint
from orchestrator.spec.job import JobSpec

# A person's own script finds these in plan.json. The launchers act on the rest of `training`.
_LIBRARY = (
    "strategy.tensor_parallel",
    "strategy.sequence_parallel",
    "strategy.pipeline_parallel",
    "training.optimizer",
    "training.schedule",
    "training.activation_checkpointing",
    "training.compile",
    "training.lora",
    "training.trainable",
    "training.local_sgd",
    "training.find_micro_batch",
    "training.evaluation",
    "training.seed",
    "training.deterministic",
    "checkpoint.every_steps",
    "checkpoint.every_minutes",
    "checkpoint.at_end",
    "checkpoint.on_signal",
    "checkpoint.best",
    "checkpoint.keep_last",
    "checkpoint.keep_every",
    "checkpoint.asynchronous",
    "checkpoint.resume",
    "logging.every_steps",
    "logging.tensorboard",
    "logging.wandb",
)
_USES_LIBRARY = b"orchestrator.training"


def unread(spec: JobSpec, folder: Path | None = None) -> list[str]:
    """The settings that a script which does not use ptx's training library must read itself.
    `folder` is the spec's own; without it the script is taken to use it."""
    if uses_library(spec, folder):
        return []
    default = JobSpec(name="default", entrypoint=Entrypoint())
    return [path for path in _LIBRARY if _get(spec, path) != _get(default, path)]


def uses_library(spec: JobSpec, folder: Path | None) -> bool:
    """Whether the script imports ptx's training library, as the shipped entrypoints do.

    What is no script of the spec's folder (a module, a command) is given the benefit of the doubt.
    """
    if spec.entrypoint.script is None or folder is None:
        return True
    try:
        return _USES_LIBRARY in (folder / spec.entrypoint.script).read_bytes()
    except OSError:
        return True


def _get(spec: JobSpec, path: str) -> Any:
    return reduce(getattr, path.split("."), spec)
