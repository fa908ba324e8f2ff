"""Questions about many jobs, in chunks; and what SLURM's accounting answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from orchestrator.errors import SchedulerUnreachable
from orchestrator.schedulers.slurm_command import ask

CHUNK = 500
"""Jobs in one question: bounds the length of a command line and the database's work."""


def chunks(jobs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Options for some of these jobs at a time (job id -> name)."""
    rows = iter(jobs.items())
    while chunk := dict(islice(rows, CHUNK)):
        yield f"--jobs={','.join(chunk)}", f"--name={','.join(dict.fromkeys(chunk.values()))}"


def sacct(jobs: Mapping[str, str], fields: str) -> Iterator[str]:
    """Rows of these fields, for as long as it answers: many sites run no accounting."""
    for which in chunks(jobs):
        # Without --duplicates a requeued job's older starts hide, and so may the newest one.
        argv = ["sacct", "--duplicates", "-n", "-P", "-X", f"--format={fields}"]
        try:
            answer = ask([*argv, *which])
        except SchedulerUnreachable:
            return
        if answer.code != 0:
            return
        yield answer.out
