"""Rendezvous, restart, checkpoint and logging settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.base import Model, NonNegativeInt, PositiveInt, matching
from orchestrator.spec.quantities import Duration, Size

_INTERFACE = r"[A-Za-z0-9_.:=^,-]{1,64}"
Interface = Annotated[
    str,
    matching(_INTERFACE, "cannot be a network interface", "write its name, as ib0 or eth0"),
    Field(json_schema_extra={"pattern": f"^{_INTERFACE}$"}),
]


class Rendezvous(Model):
    """How the ranks find each other."""

    backend: Literal["c10d", "static"] = "c10d"
    """torchrun's backend; accelerate hands it on, deepspeed has its own."""
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Default: derived from the job id outside the ephemeral range; on one local node, a free
    one. 0 asks for a free one and is refused on several nodes, where each would pick another."""
    timeout: Duration = "10m"
    """How long ranks wait for each other at start."""
    interface: Interface | None = None
    """Network interface for NCCL and gloo, as ib0; its address is the one the others are told."""


class Restart(Model):
    max: NonNegativeInt = 0
    """Restarts after failures that count. Preemption and node failure do not (of those that SLURM
    knows nothing of the first five in a row), nor a time limit before which the ranks saved and
    ended as they were asked to. What fails the same way twice, each time within ten minutes and
    before it told ptx of a step (a script of yours by touching $PTX_STEP_FILE), is given up."""
    on: list[Literal["preempted", "time-limit", "node-failure", "failed"]] = [
        "preempted",
        "time-limit",
        "node-failure",
        "failed",
    ]
    """Ends after which a run is started again. `failed` stands for every end that has no name of
    its own here, a hang too; an out-of-memory or an ImportError is never started again."""
    backoff: Duration = "30s"
    """Pause before a restart in the same allocation; it doubles each time, up to ten minutes."""
    hang_after: Duration | None = None
    """Ranks that make no step for so long, after their first one, say where they stand, are ended
    and started again; those of a script that does not report its steps, where they print nothing
    for so long. Longer than the longest save. A node without a sign of life for so long and 90 s
    is ended, too. Default: never."""
    grace: Duration | None = None
    """How long the ranks have to save after SIGTERM. Default: what SLURM's KillWait leaves; 10 s
    on this machine. Set it where a partition's GraceTime gives preempted jobs more."""


class Checkpoint(Model):
    every_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints."""
    every_minutes: PositiveInt | None = None
    """Minutes between two checkpoints."""
    at_end: bool = False
    """Write one after the last step."""
    on_signal: bool = False
    """Write one when the run is told to stop; every_steps and every_minutes include it."""
    keep_last: PositiveInt = 2
    """How many of the newest are kept."""
    keep_every: PositiveInt | None = None
    """Keep for good every checkpoint whose step is a multiple of this."""
    best: Literal["loss", "eval_loss", "eval_accuracy", "train_accuracy"] | None = None
    """Save when this metric is better than ever, and keep that one: loss, eval_loss (lower is
    better), eval_accuracy, train_accuracy (higher)."""
    asynchronous: bool = True
    """Write in the background while training goes on."""
    resume: Literal["auto", "never"] = "auto"
    """auto continues from the newest complete checkpoint; never starts anew."""


class Logging(Model):
    every_steps: PositiveInt = 10
    """Steps between two metrics records and progress lines."""
    tensorboard: bool = False
    """Write TensorBoard files as well."""
    wandb: bool = False
    """Send metrics to Weights & Biases as well."""
    rotate: Size | None = None
    """Start a new log file of a rank at this size, as "1GB"."""
    max: Size | None = None
    """The most that is kept of a rank's log in one attempt, as "10GB": its first file and the
    newest ones. Without `rotate` it is written in eight files."""
    compress: bool = False
    """Pack the ranks' logs with gzip when an attempt has ended on its node. The job keeps its nodes
    meanwhile: about 6 s of a core a GB, on up to eight cores at once."""
