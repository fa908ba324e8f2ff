"""What `ptx metrics` and `ptx plot` say of runs that have reported nothing."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import NotFound
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.registry import name_of


def no_metrics(runs: Sequence[RunLayout], *, measured: bool = True) -> NotFound:
    """`measured`: the nodes' samples may still be drawn."""
    one = len(runs) == 1
    names = " ".join(name_of(run) for run in runs)
    instead = f"`ptx plot {names} --x time` draws what the nodes measured"
    if not measured:
        instead = f"`ptx logs {name_of(runs[0])}` shows what was printed"
    return NotFound(
        f"{runs[0].run_id} has reported no metrics."
        if one
        else f"None of these {len(runs)} runs has reported metrics.",
        hint="Scripts on ptx's training library report them, others may write "
        f"attempts/NNN/metrics.jsonl; {instead}.",
    )
