"""What was found in run folders at an earlier look, so that they need not be read again.

A cache in the user's own state folder, never the truth: it may be deleted at any time, and an entry
counts only while the run's folder of events looks as it did. New events come in new files or at the
end of those that are there, so the folder's time of change, and the size and time of each file,
tell. Of a run that has ended for good, and long ago, the folder alone is asked: whoever starts it
again makes a new file. What changed within the last seconds is not kept, since a clock that ticks
in seconds cannot tell it from what follows.

Each folder for runs has an index of its own, written by rename: of several commands at once, and of
several machines that share a home, the last one's stays, and what it lacks is read again. Like a
compiled module it is in marshal's format, which is read in a quarter of the time that JSON takes,
and differs between versions of Python; one of another user's is none.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.runs.reading import Mark, read_regular
from orchestrator.runs.root import index_folder, runs_root
from orchestrator.runs.row import RunRow

VERSION = 5
"""Also to be raised when a state's sentence comes out another way."""
_FORMAT = 2
"""Of marshal: the last that does not look for what it has written before, at half the time."""
_MAX_BYTES = 256 << 20
_RACY_NS = 2 * 10**9
_SEALED_NS = 600 * 10**9
_WORTH_WRITING = 20
"""Entries to read again cost less than writing all of them."""


class Entry(NamedTuple):
    inode: int
    """This and the next: of the folder of events."""
    mtime_ns: int
    files: dict[str, list[int]] | None
    """Size and time of change of each file of events; None where they cannot matter any more."""
    job: list[str] | None
    """What the scheduler said, state and reason, when this was judged; None: it was not asked."""
    fields: tuple[Any, ...]
    """Of the row."""

    @property
    def row(self) -> RunRow:
        return RunRow._make(self.fields)

    def holds(self) -> bool:
        """Whether the folder of events is as it was."""
        inside = f"{self.fields[0]}/events"
        try:
            found = os.stat(inside)  # noqa: PTH116 - ten thousand a look
            if found.st_mtime_ns != self.mtime_ns or found.st_ino != self.inode:
                return False
            for name, was in (self.files or {}).items():
                found = os.stat(f"{inside}/{name}")  # noqa: PTH116
                if was != [found.st_size, found.st_mtime_ns]:
                    return False
        except (OSError, ValueError):
            return False
        return True


def entry_of(
    row: RunRow,
    folder: Mark | None,
    files: dict[str, Mark],
    job: list[str] | None,
    *,
    looked_ns: int,
) -> Entry | None:
    """None for what must be looked at each time: a folder that had just changed when it was looked
    at, and a run whose state rests on which processes live on this machine."""
    if folder is None or (not row.final and row.scheduler == "local"):
        return None
    age = looked_ns - max([folder.mtime_ns, *[mark.mtime_ns for mark in files.values()]])
    if age < _RACY_NS:
        return None
    marks = None
    if not row.final or age <= _SEALED_NS:
        marks = {name: [mark.size, mark.mtime_ns] for name, mark in files.items()}
    return Entry(folder.inode, folder.mtime_ns, marks, job, tuple(row))


class Index:
    """The entries of one folder for runs, or of the registry and the current one together."""

    def __init__(self, path: Path, what: bytes) -> None:
        """`what` it is an index of."""
        self._path = path
        self._what = what
        self._held: dict[str, Entry] = {}
        self._kept: dict[str, Entry] = {}
        self._fresh = 0
        self.registry: tuple[int, int] | None = None
        """Inode and time of change of the registry's folder when `registered` was read."""
        self.registered: dict[str, str] = {}
        """Run id -> path; "" where nobody needed it yet."""
        self._load()

    @classmethod
    def of(cls, root: Path | None) -> Index:
        """`root` None stands for the registry and the current folder for runs together."""
        registry, root = root is None, root or runs_root()
        name = f"{os.fspath(root)}\0{registry}\0{os.getuid()}".encode("utf-8", "surrogateescape")
        file = f"v{VERSION}-{sys.implementation.cache_tag}-{zlib.crc32(name):08x}"
        return cls(index_folder() / file, name)

    def get(self, path: str) -> Entry | None:
        return self._held.get(path)

    def keep(self, entries: dict[str, Entry], fresh: int) -> None:
        """Nothing but these from now on, by path; `fresh` of them were not found in here."""
        self._kept = entries
        self._fresh += fresh

    def amend(self, row: RunRow) -> None:
        """A verdict was found: to find one again costs more than to write all entries."""
        entry = self._kept.get(row.path)
        if entry is not None:
            self._kept[row.path] = entry._replace(fields=tuple(row))
            self._fresh += _WORTH_WRITING

    def register(self, rows: dict[str, str], folder: Mark | None) -> None:
        """What the registry holds, as of `folder`; a row of a run never changes."""
        self._fresh += len(rows.keys() ^ self.registered.keys())
        self.registered = rows
        racy = folder is None or time.time_ns() - folder.mtime_ns < _RACY_NS
        self.registry = None if folder is None or racy else (folder.inode, folder.mtime_ns)

    def save(self) -> None:
        """Where enough is new. A folder that cannot be written costs the next look time."""
        gone = len(self._held.keys() - self._kept.keys())
        if self._fresh + gone < _WORTH_WRITING:
            return
        with contextlib.suppress(OSError):
            self._write()

    def _load(self) -> None:
        try:
            seen, data = read_regular(self._path, _MAX_BYTES)
        except OSError:
            return
        end = data.find(b"\n")
        head, body = data[:end], memoryview(data)[end + 1 :]
        if seen.st_uid != os.geteuid() or head != _head(body):
            return
        what, registry, registered, runs = marshal.loads(body)  # noqa: S302 - our own, and whole
        if what != self._what:  # another with the same sum
            return
        self.registry, self.registered = registry, registered
        entries = map(Entry._make, runs)
        self._held = {entry.fields[0]: entry for entry in entries}

    def _write(self) -> None:
        runs = list(map(tuple, self._kept.values()))
        body = marshal.dumps((self._what, self.registry, self.registered, runs), _FORMAT)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = self._path.with_name(f".{self._path.name}.{os.uname().nodename}.{os.getpid()}")
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(_head(body) + b"\n" + body)
            scratch.replace(self._path)
        finally:
            scratch.unlink(missing_ok=True)


def _head(body: bytes | memoryview) -> bytes:
    """A half-written or damaged index is none."""
    return f"ptx index {VERSION} {zlib.crc32(body)}".encode()
