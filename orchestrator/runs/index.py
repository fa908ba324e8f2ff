"""What was found in run folders at an earlier look, so that they need not be read again.

A cache in the user's own state folder, never the truth: it may be deleted at any time, and an entry
counts only while the run's folder of events looks as it did. New events come in new files or at the
end of those that are there, so the folder's time of change, and the size and time of each file,
tell. Of a run that has ended for good, and long ago, the folder alone is asked: whoever starts it
again makes a new file. What changed within the last seconds is not kept, since a clock that ticks
in seconds cannot tell it from what follows.

Each folder for runs has an index of its own, written by rename: of several commands at once, and of
several machines that share a home, the last one's stays, and what it lacks is read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.runs.columns import pack, unpack
from orchestrator.runs.events import Mark
from orchestrator.runs.reading import read_bytes
from orchestrator.runs.root import index_folder, runs_root
from orchestrator.runs.row import RunRow

VERSION = 2
"""Also to be raised when a state's sentence comes out another way."""
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
    row: RunRow

    def holds(self) -> bool:
        """Whether the folder of events is as it was."""
        inside = f"{self.row.path}/events"
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
    age = looked_ns - max(folder.mtime_ns, *(mark.mtime_ns for mark in files.values()), 0)
    if age < _RACY_NS:
        return None
    sealed = row.final and age > _SEALED_NS
    marks = {name: [mark.size, mark.mtime_ns] for name, mark in files.items()}
    return Entry(folder.inode, folder.mtime_ns, None if sealed else marks, job, row)


class Index:
    """The entries of one folder for runs, or of the registry and the current one together."""

    def __init__(self, path: Path) -> None:
        self._path = path
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
        digest = hashlib.blake2b(name, digest_size=12).hexdigest()
        return cls(index_folder() / f"v{VERSION}-{digest}.json")

    def get(self, path: str) -> Entry | None:
        return self._held.get(path)

    def keep(self, entries: dict[str, Entry], fresh: int) -> None:
        """Nothing but these from now on, by path; `fresh` of them were not found in here."""
        self._kept = entries
        self._fresh += fresh

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
            head, _, body = read_bytes(self._path, _MAX_BYTES).partition(b"\n")
            if head != _head(body):
                return
            fields = json.loads(body)
        except (OSError, ValueError, RecursionError):
            return
        self._held = {entry.row.path: entry for entry in map(_unpacked, unpack(fields["runs"]))}
        self.registry = tuple(fields["registry"]) if fields["registry"] else None
        self.registered = {
            name: f"{parent}/{name}" if parent else ""
            for parent, names in fields["registered"]
            for name in names
        }

    def _write(self) -> None:
        parents: dict[str, list[str]] = {}
        for name, path in self.registered.items():
            parent, _, last = path.rpartition("/")
            if not path or last == name:  # as it always is, unless somebody moved the run
                parents.setdefault(parent, []).append(name)
        fields = {
            "registry": self.registry,
            "registered": list(parents.items()),
            "runs": pack([_packed(entry) for entry in self._kept.values()]),
        }
        body = json.dumps(fields, separators=(",", ":")).encode()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = self._path.with_name(f".{self._path.name}.{os.uname().nodename}.{os.getpid()}")
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(_head(body) + b"\n" + body)
            scratch.replace(self._path)
        finally:
            scratch.unlink(missing_ok=True)


def _packed(entry: Entry) -> tuple[Any, ...]:
    """Without what a row says twice: nearly always its id is its folder's name, and its sentence
    what the table shows of it."""
    path, run_id, *rest = entry.row
    folder, _, name = path.rpartition("/")
    row = entry.row
    said = (None if row.run_id == name else run_id, None if row.brief == row.reason else row.brief)
    return (*entry[:4], folder, name, *said, *rest)


def _unpacked(fields: tuple[Any, ...]) -> Entry:
    inode, mtime_ns, files, job, folder, name, run_id, brief, title, state, reason, _, *rest = (
        fields
    )
    told = (reason if brief is None else brief, *rest)
    row = RunRow(f"{folder}/{name}", run_id or name, title, state, reason, *told)
    return Entry(inode, mtime_ns, files, job, row)


def _head(body: bytes) -> bytes:
    """A half-written or damaged index is none."""
    return f"ptx index {VERSION} {zlib.crc32(body)}".encode()
