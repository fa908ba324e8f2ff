"""The events of a run: what happened, one JSON object a line, one file a writer."""

from __future__ import annotations

import errno
import json
import os
import time
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name
from orchestrator.runs.reading import END_OF_TIME, LARGEST, read_regular

VERSION = 1
MAX_LINE = 4 << 20
"""Bytes: a job of ten thousand nodes names them in a tenth of it."""
MAX_FILE = 64 << 20
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_ABANDONED_SECONDS = 60.0
_QUIET_NS = 60 * 10**9
_READS = 5
"""Two do, unless somebody writes at that very moment."""


class Event(NamedTuple):
    t: float
    """Epoch seconds by the writer's clock."""
    type: str
    fields: dict[str, Any]

    def integer(self, key: str, default: int = 0) -> int:
        value = self.fields.get(key)
        if type(value) is not int or not -LARGEST <= value <= LARGEST:  # a bool is no number
            return default
        return value

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""


def read_events(layout: RunLayout) -> list[Event]:
    """All events of a run in time order, as of one moment.

    A last line that is still being written, a corrupt one and one from a newer version are left
    out: a reader must never fail because a writer died.
    """
    return EventReader(layout).read()


class Mark(NamedTuple):
    """What a file or folder looked like; any change of it changes this."""

    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, path: str) -> Mark | None:
        try:
            found = os.stat(path)  # noqa: PTH116 - thousands of files a look: Path costs more
        except (OSError, ValueError):
            return None
        return cls(found.st_ino, found.st_mtime_ns, found.st_size)


class _File:
    __slots__ = ("events", "mark", "offset")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.offset = 0
        """Whole lines up to here have been read."""
        self.events: list[Event] = []


class EventReader:
    """The events of one run; a later look reads only what was written since the one before."""

    def __init__(self, layout: RunLayout) -> None:
        self._folder = os.fspath(layout.root) + "/events"
        self._files: dict[str, _File] = {}
        self._events: list[Event] = []
        self._quiet = False
        self.looked_ns = 0
        """When the last look began, by this machine's clock."""
        self.folder: Mark | None = None
        """Of the last look, before it began; None where there is no such folder."""

    @property
    def marks(self) -> dict[str, Mark]:
        """Events file -> what it looked like when it was read."""
        return {name: file.mark for name, file in self._files.items()}

    def read(self) -> list[Event]:
        """All events in time order, as of one moment: the same list while nothing changes."""
        changed = False
        for _ in range(_READS):
            # An end in the file read last, without what led to it in the first, would be misjudged.
            if not self._look():
                break
            changed = True
            if self._quiet:
                break
        if changed:
            files = [self._files[name] for name in sorted(self._files)]
            events = [event for file in files for event in file.events]
            self._events = sorted(events, key=_time)
        return self._events

    def _look(self) -> bool:
        """Whether anything had changed."""
        self.looked_ns = time.time_ns()
        self.folder = Mark.of(self._folder)
        names = _names(self._folder)
        gone = self._files.keys() - set(names)
        for name in gone:
            del self._files[name]
        # All that was read is old: then nobody was writing while it was.
        self._quiet = True
        self._old_ns = self.looked_ns - _QUIET_NS
        changed = [lines for name in names if (lines := self._read_on(name)) is not None]
        _add_events([lines for lines in changed if lines.whole])
        return bool(changed) or bool(gone)

    def _read_on(self, name: str) -> _Lines | None:
        """What was written since; None where the file is as it was."""
        path = f"{self._folder}/{name}"
        file = self._files.get(name)
        if file is not None and Mark.of(path) in (file.mark, None):
            return None
        offset = file.offset if file is not None else 0
        mark, data = _read_file(path, offset)
        if mark is None:
            return None
        if file is None or file.mark.inode != mark.inode or mark.size < file.offset:
            if offset:
                mark, data = _read_file(path, 0)
            if mark is None:
                return None
            file = self._files[name] = _File(mark)
        file.mark = mark
        self._quiet &= mark.mtime_ns < self._old_ns and mark.size == file.offset + len(data)
        whole = data.rfind(b"\n") + 1  # what follows the last newline is not yet whole
        file.offset += whole
        return _Lines(file, data[: whole - 1].split(b"\n") if whole else [])


def _time(event: Event) -> float:
    return event.t


def _names(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError:
        return []
    return sorted(name for name in names if name.endswith(".jsonl"))


def _read_file(path: str, offset: int) -> tuple[Mark | None, bytes]:
    """What the file looked like, then its bytes from `offset` on; of a file that is larger than
    events can be only the beginning. None for what is not there, or is no file."""
    try:
        found, data = read_regular(path, max(1, MAX_FILE - offset), offset)
    except OSError:
        return None, b""
    return Mark(found.st_ino, found.st_mtime_ns, found.st_size), data


class _Lines(NamedTuple):
    file: _File
    whole: list[bytes]


def _add_events(read: list[_Lines]) -> None:
    """Parse what was read, all files in one, and each line alone where one is damaged."""
    lines = [line for one in read for line in one.whole]
    events = iter(_all_at_once(lines) or map(_parse, lines))
    for file, whole in read:
        file.events += [event for event in islice(events, len(whole)) if event is not None]


def _all_at_once(lines: list[bytes]) -> list[Event | None] | None:
    """What `_parse` makes of each, in a third of the time; None where one of them is damaged."""
    if sum(map(len, lines)) > MAX_LINE:
        return None
    try:
        found = json.loads(b"[%s]" % b",".join(lines))
    except (ValueError, RecursionError):
        return None
    return [_event(fields) for fields in found] if len(found) == len(lines) else None


def _parse(line: bytes) -> Event | None:
    if len(line) > MAX_LINE:
        return None
    try:
        return _event(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _event(fields: object) -> Event | None:
    if not isinstance(fields, dict) or fields.pop("v", None) != VERSION:
        return None
    t, kind = fields.pop("t", None), fields.pop("type", None)
    if not isinstance(t, int | float) or not 0 <= t < END_OF_TIME or not isinstance(kind, str):
        return None
    return Event(float(t), kind, fields)


class ClientEvents:
    """The events file of this command; made when the first event is written."""

    def __init__(self, layout: RunLayout, *, mode: int | None = None) -> None:
        self._path = layout.events / _writer_name()
        self._folder = layout.events
        self._mode = mode

    @classmethod
    def claim(cls, layout: RunLayout, number: int, **fields: Any) -> ClientEvents:
        """The file of submission `number`, with its intent: one client alone gets it.

        Raises FileExistsError where another has it, OSError.
        """
        events = cls(layout)
        scratch = events._path.with_suffix(".claim")
        events._path = scratch
        try:
            events.append("intent", submission=number, **fields)
            events._path = layout.events / f"resume-{number:03d}.jsonl"
            try:
                os.link(scratch, events._path)  # whole at once, and never over another's
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                events._path = _made_alone(events._path, scratch.read_bytes(), events._file_mode())
        finally:
            scratch.unlink(missing_ok=True)
        return events

    def append(self, kind: str, **fields: Any) -> Event:
        """Write one event durably. Raises OSError."""
        event = Event(round(time.time(), 6), kind, fields)
        record = {"v": VERSION, "t": event.t, "type": kind, **fields}
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        mode = self._file_mode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, mode)
        try:
            os.fchmod(descriptor, mode)
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return event

    def _file_mode(self) -> int:
        """0600, or 0660 in a folder that a group shares."""
        if self._mode is None:
            self._mode = 0o660 if self._folder.stat().st_mode & 0o020 else 0o600
        return self._mode


def _made_alone(path: Path, line: bytes, mode: int) -> Path:
    """`path`, made by this client and no other, where the file system has no hard links; beside it
    where a client died over it. Raises FileExistsError where another has it, OSError."""
    for name in (path, *(path.with_stem(f"{path.stem}-{again}") for again in range(1, 100))):
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            if not _is_abandoned(name):
                raise
            continue
        try:
            os.fchmod(descriptor, mode)
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return name
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _is_abandoned(path: Path) -> bool:
    """Whether whoever made it has died before a line was in it."""
    found = path.stat()
    return not found.st_size and time.time() - found.st_mtime > _ABANDONED_SECONDS


def _writer_name() -> str:
    import secrets

    return f"client-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
