"""Coming back after an end that nobody wanted."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.warning import (
    left_to_save,
    saves_on_warning,
    warning_for,
    warning_seconds,
)

_SHORT = 30
"""Seconds; a warning that comes later leaves no time to save much, end and queue again."""
_SAVES = 2
"""The one that is under way when the warning comes, and the one that it asks for."""


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
    no_limit = spec.resources.time_limit is None
    if spec.scheduler == "slurm" and spec.checkpoint.on_signal and no_limit:
        yield Finding(
            ("checkpoint", "on_signal"),
            "without resources.time_limit SLURM warns nobody before the partition's own limit",
            "set resources.time_limit, at most the partition's (`sinfo -o '%P %l'`)",
            warning=True,
        )


def warning_shorter_than_a_save(spec: JobSpec, context: Context) -> Iterator[Finding]:
    """By what a save took, where one was measured; else by what is hardly ever enough."""
    warning = warning_seconds(spec)
    if warning is None or not saves_on_warning(spec):
        return
    path = ("slurm", "signal_before")
    measured = context.save(spec.name)
    if measured is None:
        if spec.slurm.signal_before is not None and warning < _SHORT:
            yield Finding(
                path,
                f"the ranks are warned {warning} s before the time limit, and in that time they "
                "have to save, end, and go back into the queue",
                "leave it out (120 s), or set it to several times what a save takes",
                warning=True,
            )
        return
    left, needed = left_to_save(warning), _SAVES * measured.seconds
    if left < needed:
        yield Finding(
            path,
            f"the ranks are warned {warning} s before the time limit, of which {left:.0f} s are "
            f"for saving, and a save took {measured.seconds:.0f} s ({measured.where}); one that is "
            "under way has to end first",
            f"set slurm.signal_before to {warning_for(needed)} or more",
            warning=True,
        )
