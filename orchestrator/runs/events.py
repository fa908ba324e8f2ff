"""The events of a run: what happened, one JSON object a line, one file a writer."""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name

VERSION = 1
_READS = 5
"""Two do, unless somebody writes at that very moment."""


@dataclass(frozen=True)
class Event:
    t: float
    """Epoch seconds by the writer's clock."""
    type: str
    fields: dict[str, Any] = field(default_factory=dict)

    def integer(self, key: str, default: int = 0) -> int:
        value = self.fields.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""


def read_events(layout: RunLayout) -> list[Event]:
    """All events of a run in time order, as of one moment.

    A last line that is still being written, a corrupt one and one from a newer version are left
    out: a reader must never fail because a writer died.
    """
    files = _read_files(layout.events)
    for _ in range(_READS - 1):
        # An end in the file read last, without what led to it in the first, would be misjudged.
        again = _read_files(layout.events)
        if again == files:
            break
        files = again
    events = [event for data in files.values() for event in _events(data)]
    return sorted(events, key=lambda event: event.t)


def _read_files(folder: Path) -> dict[str, bytes]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a hundred runs: listdir is cheap
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name: _read_file(folder / name) for name in names if name.endswith(".jsonl")}


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _events(data: bytes) -> Iterator[Event]:
    for line in data.split(b"\n")[:-1]:  # what follows the last newline is not yet whole
        event = _parse(line)
        if event is not None:
            yield event


def _parse(line: bytes) -> Event | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.pop("v", None) != VERSION:
        return None
    t, kind = fields.pop("t", None), fields.pop("type", None)
    if not isinstance(t, int | float) or not math.isfinite(t) or not isinstance(kind, str):
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
            os.link(scratch, events._path)  # whole at once, and never over another's
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


def _writer_name() -> str:
    return f"client-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
