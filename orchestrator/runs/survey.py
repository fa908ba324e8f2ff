"""The state of all runs at once: what the index still holds, what changed, and one question to
each scheduler."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.runs.events import Mark, read_events
from orchestrator.runs.index import Entry, Index, entry_of
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed, Observer, ask_scheduler
from orchestrator.runs.registry import folders
from orchestrator.runs.row import RunRow, row_of
from orchestrator.schedulers.base import JobInfo, JobState

_MANY = 500
"""Runs to read from which on several processes do it: half a second's work for one."""
_WORKERS = 8
"""At most: what they wait for is one file system."""
Item = TypeVar("Item")
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
        mark = Mark.of(f"{path}/events")
        entry = index.get(path)
        if entry is not None and mark is not None and entry.holds(mark):
            found[path] = (entry.row, entry)
        else:
            unread.append(path)
    read = zip(unread, _spread(_read, unread), strict=True)
    found |= {path: one for path, one in read if one is not None}
    fresh = set(unread)
    troubles: list[str] = []
    fresh |= _ask(found, troubles)
    for path, (_, entry) in found.items():
        if path in fresh:
            index.put(path, entry)
        elif entry is not None:
            index.keep(path, entry)
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
    observer = Observer(RunLayout(Path(path)))
    run = observer.from_events()
    return None if run is None else _found(observer, run)


def _found(observer: Observer, run: Observed) -> Found:
    row = row_of(run)
    job = None if run.job is None else (run.job.state.value, run.job.reason)
    return row, entry_of(row, observer.folder, observer.files, job)


def _ask(found: dict[str, Found], troubles: list[str]) -> set[str]:
    """Put what the schedulers say into `found`; the runs that had to be read again for it."""
    waiting: list[tuple[str, JobInfo | None]] = []
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
                waiting.append((path, job))
    for (path, _), one in zip(waiting, _spread(_read_with_job, waiting), strict=True):
        if one is None:  # deleted while we looked
            del found[path]
        else:
            found[path] = one
    return {path for path, _ in waiting}


def _said_before(job: JobInfo | None, entry: Entry) -> bool:
    """Then the sentence is the same, too; of a job that nobody knows the heartbeats tell."""
    if job is None or job.state is JobState.UNKNOWN:
        return False
    return entry.job == (job.state.value, job.reason)


def _read_with_job(asked: tuple[str, JobInfo | None]) -> Found | None:
    path, job = asked
    observer = Observer(RunLayout(Path(path)))
    run = observer.from_events()
    if run is None:
        return None
    return _found(observer, run if run.state.final else observer.with_job(run, job))


def _spread(work: Callable[[Item], Found | None], items: Sequence[Item]) -> Sequence[Found | None]:
    """`work` of each of `items`, in order; of many in several processes."""
    workers = min(_WORKERS, len(os.sched_getaffinity(0)), len(items) // _MANY + 1)
    if workers == 1:
        return [work(item) for item in items]
    import multiprocessing
    import signal

    context = multiprocessing.get_context("fork")
    quietly = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is this process's to tell
    with context.Pool(workers, signal.signal, quietly) as pool:
        return pool.map(work, items, chunksize=len(items) // (workers * 4) + 1)
