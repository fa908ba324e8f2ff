"""The state of all runs at once: what the index still holds, what changed, and one question to
each scheduler."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.runs.ask import ask_scheduler
from orchestrator.runs.index import Entry, Index
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.registry import folders
from orchestrator.runs.row import RunRow
from orchestrator.runs.run_reader import Asked, RunReader, Told, from_plain
from orchestrator.runs.team import Team
from orchestrator.runs.words import printable
from orchestrator.schedulers.base import JobInfo, JobState

if TYPE_CHECKING:
    from orchestrator.runs.events import Event

_SHARE = 4000
"""Folders that the index knows of, from which on another process has a look at some of them: the
work of a few times what it takes to make the process."""
_READ = 20
"""As many of them are looked at while one run is read."""
_MUCH = 1000
"""Runs to be read, from which on others read them for longer than anything takes that is to be done
meanwhile."""
_WORKERS = 8
"""At most: what they wait for is one file system."""
_AGE = attrgetter("created", "run_id")
Found = dict[str, tuple[RunRow, Entry | None]]
"""By path: a run, and what the index may keep of it."""


@dataclass(frozen=True)
class Survey:
    rows: list[RunRow]
    """Newest first."""
    troubles: tuple[str, ...]
    """One sentence for each scheduler that could not be asked, and one for runs that could not be
    read."""
    index: Index
    """To be saved once the rows have been shown."""


def survey(root: Path | None = None, meanwhile: Callable[[], object] | None = None) -> Survey:
    """All runs in `root`; without one, those that this user has submitted and those in the current
    folder for runs. Where other processes read many of them, `meanwhile` is called before this
    one joins them."""
    with _no_collection():
        return _survey(root, meanwhile)


def _survey(root: Path | None, meanwhile: Callable[[], object] | None) -> Survey:
    index = Index.of(root)
    paths = folders(root, index)
    reader = RunReader(paths, index)
    troubles: list[str] = []
    unread = sum([index.get(path) is None for path in paths])
    with Team(_workers(len(paths), unread), reader) as team:
        told = team.share(reader.look, len(paths), meanwhile if unread >= _MUCH else None)
        found, fresh = _found(paths, told, index, troubles)
        fresh += _ask(found, paths, reader, team, troubles)
    entries = {path: entry for path, (_, entry) in found.items() if entry is not None}
    index.keep(entries, fresh)
    rows = sorted([row for row, _ in found.values()], key=_AGE, reverse=True)
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


def _workers(runs: int, unread: int) -> int:
    """How many processes are worth while, this one among them."""
    looks = runs + _READ * unread
    return min(_WORKERS, len(os.sched_getaffinity(0)), looks // _SHARE + 1)


def _found(
    paths: Sequence[str], told_of: Sequence[Told], index: Index, troubles: list[str]
) -> tuple[Found, int]:
    """The runs, and how many of them the index did not have."""
    found: Found = {}
    unreadable: list[str] = []
    fresh = 0
    for path, told in zip(paths, told_of, strict=True):
        entry = index.get(path)
        if told is True and entry is not None:
            found[path] = entry.row, entry
            continue
        fresh += 1
        if isinstance(told, tuple):
            found[path] = from_plain(told)
        elif told is None:
            unreadable.append(path)
    if unreadable:
        troubles.append(_unreadable(sorted(unreadable)))
    return found, fresh


def _unreadable(paths: Sequence[str]) -> str:
    """A table without them would seem to be all."""
    more = {1: "", 2: " and that of one other run"}
    others = more.get(len(paths), f" and those of {len(paths) - 1} other runs")
    return (
        f"{printable(paths[0])}/run.json{others} cannot be read by this version of ptx; "
        f"{'it' if len(paths) == 1 else 'they'} may be damaged, or written by a newer ptx."
    )


def _ask(
    found: Found, every: Sequence[str], reader: RunReader, team: Team, troubles: list[str]
) -> int:
    """Put what the schedulers say into `found`; how many runs had to be judged again for it."""
    said: dict[str, Asked] = {}
    schedulers: dict[str, list[str]] = {}
    for path, (row, _) in found.items():
        if not row.final:
            schedulers.setdefault(row.scheduler, []).append(path)
    for name, paths in sorted(schedulers.items()):
        jobs = _jobs(name, [found[path][0] for path in paths], troubles)
        for path in paths:
            row, entry = found[path]
            job = jobs.get(row.job_id or "")
            if entry is None or not _said_before(job, entry):
                said[path] = _asked(path, job)
    numbers = {path: number for number, path in enumerate(every)} if said else {}
    asked = [(numbers[path], one) for path, one in said.items()]
    for path, told in zip(said, team.again(reader.judge, asked), strict=True):
        if told:
            found[path] = from_plain(told)
        else:  # deleted while we looked
            del found[path]
    return len(said)


def _jobs(name: str, rows: Sequence[RunRow], troubles: list[str]) -> dict[str, JobInfo]:
    """By job id, what the scheduler `name` says of them."""
    layouts = {row.job_id: RunLayout(row.path) for row in rows if row.job_id}
    left = [_with_events(row) for row in rows if row.unsettled]
    return ask_scheduler(name, layouts, left, troubles)


def _with_events(row: RunRow) -> tuple[RunLayout, Sequence[Event]]:
    from orchestrator.runs.events import read_events

    layout = RunLayout(row.path)
    return layout, read_events(layout)


def _said_before(job: JobInfo | None, entry: Entry) -> bool:
    """Then the sentence is the same, too; of a job that nobody knows the heartbeats tell."""
    if job is None or job.state is JobState.UNKNOWN:
        return False
    return entry.job == [job.state.value, job.reason]


def _asked(path: str, job: JobInfo | None) -> Asked:
    return (path, None, "") if job is None else (path, job.state.value, job.reason)
