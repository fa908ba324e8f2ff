"""The whole spec."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from orchestrator.spec.base import EnvName, Model, Name, Text
from orchestrator.spec.entrypoint import Entrypoint
from orchestrator.spec.launcher import LauncherChoice
from orchestrator.spec.policies import Checkpoint, Logging, Rendezvous, Restart
from orchestrator.spec.resources import Resources
from orchestrator.spec.slurm import Slurm
from orchestrator.spec.strategy import Ddp, Strategy
from orchestrator.spec.training import Training


class JobSpec(Model):
    """One distributed training job."""

    version: Literal[1] = 1
    """Version of this format."""
    name: Name
    """Letters, digits, dot, dash and underscore; the run id begins with it."""
    entrypoint: Entrypoint
    """What is run on every rank."""
    launcher: LauncherChoice = LauncherChoice()
    """Which program starts the ranks."""
    scheduler: Text = "local"
    """local, slurm, or one that a package adds (entry point ptx.schedulers)."""
    resources: Resources = Resources()
    """What the run asks of the machines."""
    slurm: Slurm = Slurm()
    """What SLURM is told besides resources; unread elsewhere."""
    strategy: Strategy = Ddp()
    """How parameters, gradients and optimizer state are spread over the ranks."""
    training: Training = Training()
    """Switches of the training entrypoints; any entrypoint finds them in plan.json."""
    rendezvous: Rendezvous = Rendezvous()
    """How the ranks find each other."""
    env: dict[EnvName, Text] = {}
    """Environment of the ranks. Values are text: quote numbers and yes/no."""
    secrets: list[EnvName] = []
    """Names of variables whose values ptx takes from its own environment at submit and hands
    to the ranks through a 0600 file. Values never belong in a spec."""
    setup: list[Text] = []
    """Shell lines run on every node before the launcher, as `module load cuda`."""
    python: Text | None = None
    """Interpreter of launcher and entrypoint, looked up after setup. Default: ptx's own."""
    workdir: Text | None = None
    """Folder the ranks start in. Default: where `ptx submit` was typed."""
    share: Literal["private", "group"] = "private"
    """Who may read the run folder: only you, or the group that owns the runs root."""
    restart: Restart = Restart()
    """When and how often a run is started again."""
    checkpoint: Checkpoint = Checkpoint()
    """When checkpoints are written and which are kept."""
    logging: Logging = Logging()
    """What is recorded while training."""

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, data: object) -> object:
        """`launcher: torchrun` and `strategy: ddp` stand for `{name: ...}`."""
        if not isinstance(data, dict):
            return data
        short = {
            key: {"name": data[key]}
            for key in ("launcher", "strategy")
            if isinstance(data.get(key), str)
        }
        return {**data, **short}
