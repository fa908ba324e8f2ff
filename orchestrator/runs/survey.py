"""The state of all runs at once: what the index still holds, what changed, and one question to
each scheduler."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runs.events import read_events
from orchestrator.runs.index import Entry, Index, entry_of
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed, Observer, ask_scheduler
from orchestrator.runs.registry import folders
from orchestrator.runs.row import RunRow, row_of
from orchestrator.runs.team import Team
from orchestrator.schedulers.base import JobInfo, JobState

_MANY = 500
"""Runs to read from which on several processes do it: half a second's work for one."""
_WORKERS = 8
"""At most: what they wait for is one file system."""
_LEFT: dict[str, tuple[Observer, Observed]] = {}
"""What this process has read and a scheduler is yet to be asked about, by path."""
Found = tuple[RunRow, Entry | None]
"""A run, and what the index may keep of it."""


@dataclass(frozen=True)
class Survey:
    rows: list[RunRow]
    """Newest first."""
    troubles: tuple[str, ...]
    """One sentence for each scheduler that could not be asked."""
    index: Index
    """To be saved once the rows have been shown."""


def survey(root: Path | None = None) -> Survey:
    """All runs in `root`; without one, those that this user has submitted and those in the current
    folder for runs."""
    with _no_collection():
        return _survey(root)


def _survey(root: Path | None) -> Survey:
    index = Index.of(root)
    found: dict[str, Found] = {}
    unread: list[str] = []
    for path in folders(root, index):
        entry = index.get(path)
        if entry is not None and entry.holds():
            found[path] = (entry.row, entry)
        else:
            unread.append(path)
    troubles: list[str] = []
    with Team(_workers(len(unread))) as team:
        read = zip(unread, team.map(_read, unread, str), strict=True)
        found |= {path: one for path, one in read if one is not None}
        fresh = _ask(found, team, troubles).union(unread)
    _LEFT.clear()
    entries = {path: entry for path, (_, entry) in found.items() if entry is not None}
    index.keep(entries, len(fresh))
    rows = sorted((row for row, _ in found.values()), key=_age, reverse=True)
    return Survey(rows, tuple(troubles), index)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Ten thousand runs make a million objects and no cycle: looking for one again and again takes
    a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor shall the first look for cycles afterwards, or the last one at exit
        if was:
            gc.enable()


def _age(row: RunRow) -> tuple[float, str]:
    return row.created, row.run_id


def _read(path: str) -> Found | None:
    """From the run folder alone; None for what is no run."""
    observer, run = _observed(path)
    if run is None:
        return None
    if not run.state.final:
        _LEFT[path] = observer, run
    return _found(observer, run)


def _found(observer: Observer, run: Observed) -> Found:
    row = row_of(run)
    job = None if run.job is None else [run.job.state.value, run.job.reason]
    return row, entry_of(row, observer.folder, observer.files, job, looked_ns=observer.looked_ns)


def _ask(found: dict[str, Found], team: Team, troubles: list[str]) -> set[str]:
    """Put what the schedulers say into `found`; the runs that had to be judged again for it."""
    said: dict[str, JobInfo | None] = {}
    schedulers: dict[str, list[str]] = {}
    for path, (row, _) in found.items():
        if not row.final:
            schedulers.setdefault(row.scheduler, []).append(path)
    for name, paths in sorted(schedulers.items()):
        rows = [found[path][0] for path in paths]
        layouts = {row.job_id: RunLayout(Path(row.path)) for row in rows if row.job_id}
        left = [RunLayout(Path(row.path)) for row in rows if row.unsettled]
        unsettled = [(layout, read_events(layout)) for layout in left]
        jobs = ask_scheduler(name, layouts, unsettled, troubles)
        for path in paths:
            row, entry = found[path]
            job = jobs.get(row.job_id or "")
            if entry is None or not _said_before(job, entry):
                said[path] = job
    for path, one in zip(said, team.map(_judge, list(said.items()), _path), strict=True):
        if one is None:  # deleted while we looked
            del found[path]
        else:
            found[path] = one
    return set(said)


def _said_before(job: JobInfo | None, entry: Entry) -> bool:
    """Then the sentence is the same, too; of a job that nobody knows the heartbeats tell."""
    if job is None or job.state is JobState.UNKNOWN:
        return False
    return entry.job == [job.state.value, job.reason]


def _judge(asked: tuple[str, JobInfo | None]) -> Found | None:
    """With the scheduler's word; not read again where that says nothing new."""
    path, job = asked
    observer, run = _LEFT.pop(path) if path in _LEFT else _observed(path)
    if run is None:
        return None
    return _found(observer, run if run.state.final else observer.with_job(run, job))


def _path(asked: tuple[str, JobInfo | None]) -> str:
    return asked[0]


def _observed(path: str) -> tuple[Observer, Observed | None]:
    observer = Observer(RunLayout(Path(path)))
    return observer, observer.from_events()


def _workers(unread: int) -> int:
    return min(_WORKERS, len(os.sched_getaffinity(0)), unread // _MANY + 1)
