"""A run folder may be deleted while a command reads it: what was found then is no truth about the
run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.errors import NotFound, UserError
from orchestrator.runs.layout import RunLayout


@contextmanager
def still_there(runs: Sequence[RunLayout]) -> Iterator[None]:
    """Around the reading, before anything is said. Raises NotFound for a run whose folder is gone
    by then."""
    try:
        yield
    except (UserError, OSError):
        _check(runs)
        raise
    _check(runs)


def _check(runs: Sequence[RunLayout]) -> None:
    for run in runs:
        if not run.root.is_dir():
            raise NotFound(
                f"The folder of run {run.run_id} went away while it was read: {run.root}.",
                hint="It was deleted or moved; `ptx status` lists what is there.",
            )
