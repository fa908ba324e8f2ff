"""What `ptx metrics` and `ptx plot` say of runs that have reported nothing."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import NotFound
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.registry import name_of


def no_metrics(runs: Sequence[RunLayout], *, measured: bool = True) -> NotFound:
    """`measured`: the nodes' samples may still be drawn."""
    from orchestrator.metrics.series import foreign_lines

    names = " ".join(name_of(run) for run in runs)
    instead = f"`ptx plot {names} --x time` draws what the nodes measured"
    if not measured:
        instead = f"`ptx logs {name_of(runs[0])}` shows what was printed"
    message = (
        f"{runs[0].run_id} has reported no metrics"
        if len(runs) == 1
        else f"None of these {len(runs)} runs has reported metrics"
    )
    for run in runs:
        if foreign := foreign_lines(run):
            return _not_understood(run, *foreign, message=message, instead=instead)
    return NotFound(
        f"{message}.",
        hint="Scripts on ptx's training library report them, others may write "
        f"attempts/NNN/metrics.jsonl; {instead}.",
    )


def _not_understood(
    run: RunLayout, attempt: int, count: int, *, message: str, instead: str
) -> NotFound:
    """Whoever wrote a file where the hint says is not to be told to write one."""
    lines = "1 line, which is no report" if count == 1 else f"{count} lines, and none is a report"
    return NotFound(
        f"{message} that ptx understands: {run.metrics(attempt)} has {lines}.",
        hint='A report is one JSON object a line, with "v": 1, "t" in seconds since the epoch and '
        f'"step" as a whole number; {instead}.',
    )
