"""Elements of job arrays in SLURM's accounting.

Those that wait share one row, `1234_[0,2-4%2]`; one that is cancelled then leaves it sooner or
later and has none of its own. Where none could ever start the row is the array's, `1234`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import replace

from orchestrator.schedulers.base import JobInfo, JobState
from orchestrator.schedulers.slurm_accounting import sacct
from orchestrator.schedulers.slurm_states import SACCT_FORMAT, parse_sacct

_SPAN = r"\d{1,7}(?:-\d{1,7}(?::\d{1,7})?)?"
_SHARED = re.compile(rf"(\d{{1,20}})_\[({_SPAN}(?:,{_SPAN})*)(?:%\d+)?\]")


def elements(row: str) -> list[str]:
    """The jobs that share a row; [] for the row of a single job."""
    found = _SHARED.fullmatch(row)
    if found is None:
        return []
    indices: list[int] = []
    for span in found[2].split(","):
        ends, _, step = span.partition(":")
        first, _, last = ends.partition("-")
        indices += range(int(first), int(last or first) + 1, int(step or 1) or 1)
    return [f"{found[1]}_{index}" for index in indices]


def elements_from_sacct(jobs: Mapping[str, str], gone: Container[str]) -> dict[str, JobInfo]:
    """What accounting says of them (job id -> the array's name). Those that are `gone` from the
    queue, and never began, were cancelled if accounting knows their array."""
    names = {job_id.partition("_")[0]: name for job_id, name in jobs.items()}
    rows = _rows(names)
    arrays = {row.partition("_")[0] for row in rows}
    shared = {job_id: info for row, info in rows.items() for job_id in elements(row)}
    found = {}
    for job_id in jobs:
        number = job_id.partition("_")[0]
        row = shared.get(job_id) or rows.get(number)
        if job_id in rows:
            found[job_id] = rows[job_id]
        elif job_id in gone and number in arrays:
            words = row.reason if row and row.state is JobState.CANCELLED else "CANCELLED"
            found[job_id] = JobInfo(job_id, JobState.CANCELLED, words)
        elif row:
            found[job_id] = replace(row, job_id=job_id)
    return found


def _rows(names: Mapping[str, str]) -> dict[str, JobInfo]:
    """All rows of these arrays (number -> name): another job of the same number is none of them."""
    known: dict[str, JobInfo] = {}
    for rows in sacct(names, f"{SACCT_FORMAT},JobName"):
        lines = (line.strip().rpartition("|") for line in rows.splitlines())
        mine = [row for row, _, name in lines if names.get(re.split("[_|]", row)[0]) == name]
        known |= parse_sacct("\n".join(mine))
    return known
