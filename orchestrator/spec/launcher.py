"""Which program starts the ranks."""

from __future__ import annotations

from orchestrator.spec.base import Model, Text


class LauncherChoice(Model):
    """`launcher: torchrun` is short for `launcher: {name: torchrun}`."""

    name: Text = "torchrun"
    """torchrun, accelerate, deepspeed, or one that a package adds (entry point ptx.launchers)."""
    args: list[Text] = []
    """More flags for the launcher itself; those that ptx sets are refused."""
