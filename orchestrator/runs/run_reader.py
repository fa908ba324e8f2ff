"""What one process of a survey reads of its share of the runs, and keeps until their scheduler has
answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.runs.index import Entry, Index, entry_of
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.row import RunRow
from orchestrator.schedulers.base import JobInfo, JobState

if TYPE_CHECKING:  # `ptx status` needs none of it where nothing has changed
    from orchestrator.runs.observe import Observed, Observer

_BATCH = 32
"""Runs that are read before the first of them is judged: code and data that are used again at once
are still in the processor's cache."""
Plain = tuple[Any, ...]
"""The fields of an entry, to be handed to another process; of one that the index may not keep, the
first is None."""
Told = Plain | bool | None
"""Of a run; see `RunReader.look`."""
Asked = tuple[str, str | None, str]
"""Path of a run, and state and reason of its job; None where its scheduler said nothing."""


class RunReader:
    """Every process has a copy of its own."""

    def __init__(self, paths: Sequence[str], index: Index) -> None:
        self._paths = paths
        self._index = index
        self._left: dict[str, tuple[Observer, Observed]] = {}
        """Runs that have not ended, by path."""

    def look(self, first: int, after: int) -> list[Told]:
        """At these of all runs. True where the index still holds, False for what is no run, None
        for one whose run.json is there and cannot be read."""
        paths, unread = self._paths[first:after], []
        for path in paths:
            entry = self._index.get(path)
            if entry is None or not entry.holds():
                unread.append(path)
        if not unread:
            return [True] * len(paths)
        read: dict[str, Told] = {}
        for first in range(0, len(unread), _BATCH):
            self._read(unread[first : first + _BATCH], read)
        return [read.get(path, True) for path in paths]

    def _read(self, paths: Sequence[str], read: dict[str, Told]) -> None:
        """From the run folders alone."""
        from orchestrator.runs.observe import Observer
        from orchestrator.runs.records import is_unreadable

        observers = [Observer(RunLayout(path)) for path in paths]
        Observer.read(observers)
        for path, observer in zip(paths, observers, strict=True):
            run = observer.from_events()
            if run is None:
                read[path] = None if is_unreadable(observer.layout) else False
                continue
            read[path] = _plain(observer, run)
            if not run.state.final:
                self._left[path] = observer, run

    def judge(self, asked: Sequence[Asked]) -> list[Told]:
        """With the scheduler's word; not read again where that says nothing new. Nothing
        true for what is no run any more."""
        return [self._judge(*one) for one in asked]

    def _judge(self, path: str, state: str | None, reason: str) -> Told:
        if path not in self._left:
            read: dict[str, Told] = {}
            self._read([path], read)
            if path not in self._left:  # it has ended since, or is gone
                return read[path]
        observer, run = self._left.pop(path)
        job_id = run.state.job_id or ""
        job = None if state is None else JobInfo(job_id, JobState(state), reason)
        return _plain(observer, observer.with_job(run, job))


def _plain(observer: Observer, run: Observed) -> Plain:
    row = run.row()
    job = None if run.job is None else [run.job.state.value, run.job.reason]
    entry = entry_of(row, observer.folder, observer.files, job, looked_ns=observer.looked_ns)
    return (None, None, None, None, tuple(row)) if entry is None else tuple(entry)


def from_plain(plain: Plain) -> tuple[RunRow, Entry | None]:
    entry = Entry._make(plain)
    return entry.row, None if plain[0] is None else entry
