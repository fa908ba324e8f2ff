"""Which keys of a spec do nothing yet, and where that would cost somebody their work.

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
    """Keys that will have no effect."""
    loses_work: list[str]
    """Sentences: what the person relies on and does not have. Submit refuses."""
    refused: list[str]
    """Sentences: ptx's own entrypoint would train something else than asked. Submit refuses."""


_IGNORED = (
    "resources.spare_nodes",
    "restart.on",
    "restart.backoff",
    "checkpoint.keep_last",
    "checkpoint.keep_every",
    "checkpoint.asynchronous",
    "checkpoint.resume",
    "logging.tensorboard",
    "logging.wandb",
    "logging.rotate",
)
_LOSES_WORK = {
    "restart.max": "ptx does not restart runs yet: a run that fails stays down",
    "checkpoint.every_steps": "ptx does not write checkpoints yet: a run that ends early is lost",
    "checkpoint.every_minutes": "ptx does not write checkpoints yet: a run that ends early is lost",
    "checkpoint.at_end": "ptx does not write checkpoints yet: the trained model is lost",
    "checkpoint.on_signal": "ptx does not write checkpoints yet: the time limit loses the run",
    "checkpoint.best": "ptx does not write checkpoints yet: the best model is lost",
}
# What ptx's own entrypoints cannot train yet. Other scripts find all of it in plan.json.
_UNTRAINED_STRATEGY = (
    "strategy.name",
    "strategy.tensor_parallel",
    "strategy.sequence_parallel",
    "strategy.pipeline_parallel",
)
_UNTRAINED = (
    "training.lora",
    "training.trainable",
    "training.activation_checkpointing",
    "training.compile",
    "training.local_sgd",
    "training.find_micro_batch",
)
_UNKNOWN_OPTIMIZERS = ("adamw-8bit",)
_OWN_SCRIPT = "train_lm.py"


def not_yet(spec: JobSpec, folder: Path | None = None) -> Effects:
    """`folder` is the spec's own; with it a script is told apart from ptx's own entrypoint."""
    default = JobSpec(name="default", entrypoint=Entrypoint())
    changed = {
        path
        for path in (*_IGNORED, *_LOSES_WORK, *_UNTRAINED_STRATEGY, *_UNTRAINED)
        if _get(spec, path) != _get(default, path)
    }
    ignored = [path for path in _IGNORED if path in changed]
    loses_work = [f"{path}: {why}" for path, why in _LOSES_WORK.items() if path in changed]
    untrained = [path for path in _UNTRAINED if path in changed]
    if spec.training.optimizer.name in _UNKNOWN_OPTIMIZERS:
        untrained.append("training.optimizer.name")
    if not is_own_entrypoint(spec, folder):
        return Effects([*ignored, *untrained], loses_work, [])
    untrained = [path for path in _UNTRAINED_STRATEGY if path in changed] + untrained
    refused = [f"{_said(spec, path)}: {_OWN_SCRIPT} cannot train with it yet" for path in untrained]
    return Effects(ignored, loses_work, refused)


def is_own_entrypoint(spec: JobSpec, folder: Path | None) -> bool:
    """Whether the script is ptx's own training entrypoint, or a copy of it."""
    script = spec.entrypoint.script
    if script is None or folder is None or Path(script).name != _OWN_SCRIPT:
        return False
    try:
        return b"orchestrator.training" in (folder / script).read_bytes()
    except OSError:
        return False


def _get(spec: JobSpec, path: str) -> Any:
    return reduce(getattr, path.split("."), spec)


def _said(spec: JobSpec, path: str) -> str:
    if path == "strategy.name":
        return f"strategy {spec.strategy.name}"
    if path == "training.optimizer.name":
        return f"optimizer {spec.training.optimizer.name}"
    return path
