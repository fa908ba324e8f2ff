"""Which keys of a spec do nothing, or nothing by themselves.

A table, so that a machinery that arrives takes its rows away. Only values that differ from
the default count: a default says nothing about what the person relies on.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.spec.entrypoint import Entrypoint
from orchestrator.spec.job import JobSpec


class Effects(NamedTuple):
    ignored: list[str]
    """Keys that have no effect yet."""
    unread: list[str]
    """Keys that only ptx's training library acts on, and the script does not use it."""


_IGNORED = ("logging.rotate",)
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


def not_yet(spec: JobSpec, folder: Path | None = None) -> Effects:
    """`folder` is the spec's own; with it a script that uses ptx's library is told apart."""
    default = JobSpec(name="default", entrypoint=Entrypoint())
    changed = {path for path in (*_IGNORED, *_LIBRARY) if _get(spec, path) != _get(default, path)}
    unread = [] if uses_library(spec, folder) else [path for path in _LIBRARY if path in changed]
    return Effects(
        ignored=[path for path in _IGNORED if path in changed],
        unread=unread,
    )


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
