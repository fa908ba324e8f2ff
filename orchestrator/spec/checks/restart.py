"""Coming back after an end that nobody wanted."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec

_SHORT = 30
"""Seconds; a warning that comes later leaves no time to save much, end and queue again."""


def spares_on_local(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.scheduler == "local" and spec.resources.spare_nodes:
        yield Finding(
            ("resources", "spare_nodes"),
            "spare nodes are asked for, and the scheduler is local: this machine is one node",
            "remove spare_nodes, or write `scheduler: slurm`",
        )


def budget_for_nothing(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.restart.max and "failed" not in spec.restart.on:
        yield Finding(
            ("restart", "max"),
            f"max allows {spec.restart.max} restarts after failures, and `on` does not list failed",
            "add failed to restart.on, or leave max out",
            warning=True,
        )


def no_warning(spec: JobSpec, _: Context) -> Iterator[Finding]:
    """SLURM's signal is asked for as so many seconds before the limit that the spec names."""
    if spec.scheduler == "slurm" and spec.checkpoint.on_signal:
        if spec.resources.time_limit is None:
            yield Finding(
                ("checkpoint", "on_signal"),
                "without resources.time_limit SLURM warns nobody before the partition's own limit",
                "set resources.time_limit, at most the partition's (`sinfo -o '%P %l'`)",
                warning=True,
            )
        elif spec.slurm.signal_before is not None and spec.slurm.signal_before < _SHORT:
            yield Finding(
                ("slurm", "signal_before"),
                f"the ranks are warned {spec.slurm.signal_before} s before the time limit, and in "
                "that time they have to save, end, and go back into the queue",
                "leave it out (120 s), or set it to several times what a save takes",
                warning=True,
            )
