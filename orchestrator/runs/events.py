"""The events of a run: what happened, one JSON object a line, one file a writer."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from orchestrator.agent.files import append_line
from orchestrator.runs.files import made_alone
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name
from orchestrator.runs.reading import END_OF_TIME, LARGEST, NUMBER, Mark, parse_json, read_regular

VERSION = 1
MAX_LINE = 4 << 20
"""Bytes: a job of ten thousand nodes names them in a tenth of it."""
MAX_FILE = 64 << 20
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_QUIET_NS = 60 * 10**9
_JSON = json.JSONDecoder()
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


class _File:
    """One file of events, as far as it was read."""

    __slots__ = ("all_read", "events", "mark", "offset", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.mark: Mark | None = None
        """None until it was read."""
        self.offset = 0
        """Whole lines up to here have been read."""
        self.all_read = False
        """The last time, up to its end as it was then."""
        self.events: list[Event] = []

    def read_on(self) -> bytes | None:
        """The whole lines that were written since; None where it is as it was, or not to be read.
        Of a file that is larger than events can be, only the beginning."""
        mark, path = self.mark, self.path
        if mark is not None and Mark.of(path) in (mark, None):
            return None
        try:
            found, data = read_regular(path, max(1, MAX_FILE - self.offset), self.offset)
            if mark is not None and (found.st_ino != mark.inode or found.st_size < self.offset):
                if self.offset:
                    found, data = read_regular(path, MAX_FILE)
                self.offset, self.events = 0, []
        except OSError:
            return None
        self.mark = Mark.seen(found)
        self.all_read = found.st_size == self.offset + len(data)
        whole = data.rfind(b"\n") + 1  # what follows the last newline is not yet whole
        self.offset += whole
        return data[:whole]


class EventReader:
    """The events of one run; a later look reads only what was written since the one before."""

    def __init__(self, layout: RunLayout) -> None:
        self._folder = layout.path + "/events"
        self._files: dict[str, _File] = {}
        """By name, in order."""
        self.events: list[Event] = []
        """Of the last look, in time order."""
        self.quiet = False
        """Nobody was writing while they were read."""
        self.looked_ns = 0
        """When the last look began, by this machine's clock."""
        self.folder: Mark | None = None
        """Of the last look, before it began; None where there is no such folder."""

    @property
    def marks(self) -> dict[str, Mark]:
        """Events file -> what it looked like when it was read."""
        return {name: file.mark for name, file in self._files.items() if file.mark is not None}

    def read(self) -> list[Event]:
        """All events in time order, as of one moment: the same list while nothing changes."""
        read_together([self])
        return self.events

    def look(self, grown: list[_File], lines: list[bytes]) -> bool:
        """Whether anything had changed; the files that grew, and what was written to each, are
        added to the lists."""
        self.looked_ns = time.time_ns()
        self.folder = Mark.of(self._folder)
        before, self._files = self._files, {}
        first = len(grown)
        for name in _names(self._folder):
            file = before.pop(name, None) or _File(f"{self._folder}/{name}")
            written = file.read_on()
            if written is not None:
                grown.append(file)
                lines.append(written)
            if file.mark is not None:
                self._files[name] = file
        self.quiet = _nobody_wrote(grown[first:], self.looked_ns - _QUIET_NS)
        return len(grown) > first or bool(before)

    def order(self) -> None:
        """Anew, what the files say now."""
        by_file = [file.events for file in self._files.values()]
        self.events = sorted(chain.from_iterable(by_file), key=_TIME)


def read_together(readers: Sequence[EventReader]) -> None:
    """Each as `read` does: what all of them have to parse is parsed at once."""
    turn = readers
    for _ in range(_READS):
        # An end in the file read last, without what led to it in the first, would be misjudged.
        grown: list[_File] = []
        lines: list[bytes] = []
        changed = [reader for reader in turn if reader.look(grown, lines)]
        _add_events(grown, lines)
        for reader in changed:
            reader.order()
        turn = [reader for reader in changed if not reader.quiet]
        if not turn:
            break


_TIME = itemgetter(0)


def _names(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError:
        return []
    return sorted([name for name in names if name.endswith(".jsonl")])


def _nobody_wrote(read: list[_File], old_ns: int) -> bool:
    """While they were read: what was read is old."""
    for file in read:
        if not file.all_read or file.mark is None or file.mark.mtime_ns >= old_ns:
            return False
    return True


def _add_events(files: list[_File], read: list[bytes]) -> None:
    """Parse the lines that were read of `files`: all in one, those of a file in one where that does
    not do, and each alone where it is this one that is damaged."""
    events = _all_at_once(b"".join(read))
    first = 0
    for file, lines in zip(files, read, strict=True):
        after = first + lines.count(b"\n")
        told = events[first:after] or _all_at_once(lines) or map(_parse, lines.split(b"\n")[:-1])
        file.events += filter(None, told)
        first = after


def _all_at_once(lines: bytes) -> list[Event | None]:
    """What `_parse` makes of each, in a third of the time; [] where one of them is damaged."""
    if not 0 < len(lines) <= MAX_LINE:
        return []
    try:
        text = lines[:-1].decode("utf-8", "surrogatepass").replace("\n", ",")
        found, end = _JSON.raw_decode(f"[{text}]")
    except (ValueError, RecursionError):
        return []
    whole = end == len(text) + 2 and len(found) == lines.count(b"\n")
    return list(map(_event, found)) if whole else []


def _parse(line: bytes) -> Event | None:
    if len(line) > MAX_LINE:
        return None
    try:
        return _event(parse_json(line))
    except (ValueError, RecursionError):
        return None


def _event(fields: object) -> Event | None:
    if not isinstance(fields, dict) or fields.pop("v", None) != VERSION:
        return None
    t, kind = fields.pop("t", None), fields.pop("type", None)
    if not isinstance(t, NUMBER) or not 0 <= t < END_OF_TIME or not isinstance(kind, str):
        return None
    return tuple.__new__(Event, (float(t), kind, fields))


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
                events._path = made_alone(events._path, scratch.read_bytes(), events._file_mode())
        finally:
            scratch.unlink(missing_ok=True)
        return events

    def append(self, kind: str, **fields: Any) -> Event:
        """Write one event durably. Raises OSError."""
        event = Event(round(time.time(), 6), kind, fields)
        record = {"v": VERSION, "t": event.t, "type": kind, **fields}
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        mode = self._file_mode()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, mode)
        try:
            os.fchmod(descriptor, mode)
            append_line(descriptor, line)
        finally:
            os.close(descriptor)
        return event

    def _file_mode(self) -> int:
        """0600, or 0660 in a folder that a group shares."""
        if self._mode is None:
            self._mode = 0o660 if self._folder.stat().st_mode & 0o020 else 0o600
        return self._mode


def _writer_name() -> str:
    import secrets

    return f"client-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
