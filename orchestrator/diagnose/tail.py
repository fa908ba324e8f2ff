"""The end of a log as numbered lines, without reading the rest of it."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from orchestrator.agent.exit_record import (
    exception_line,
    group_parts,
    ignored_lines,
    is_group,
    traceback_headers,
    unmargined,
)
from orchestrator.errors import UserError
from orchestrator.logs.discovery import parts
from orchestrator.logs.line import last_state, parse
from orchestrator.logs.screen import plain
from orchestrator.runs.reading import open_file

TAIL_BYTES = 64 * 1024
LONGEST = 2000
"""Characters of a line that are looked at."""
_COUNTED_BYTES = 256 * 1024 * 1024
"""A line of a log longer than this gets no number: counting would take longer than a second."""
_CHUNK = 1 << 20
# torch's excepthook, torchrun's and accelerate's redirections put these before a line.
_PREFIX = re.compile(r"^(?:\[(?:rank|default)\d+\]:[ ]?|\[\w+\]:\[rank\d+\]:[ ]?)+")
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)


@dataclass(frozen=True)
class Tail:
    """Lines without stamps and colours; `before` lines of the file are not among them."""

    path: Path
    lines: tuple[str, ...] = ()
    offset: int = 0
    """Bytes of the file before the first line."""
    size: int = 0
    times: tuple[str, ...] = ()
    """When each line was printed, as a stamp; "" where it bears none."""
    streams: tuple[str, ...] = ()
    """stdout or stderr; "" where nobody knows."""

    def since(self, stamp: str) -> tuple[str, ...]:
        """The lines, with nothing in place of those from before."""
        rows = zip(self.lines, self.times, strict=True)
        return tuple("" if time and time < stamp else line for line, time in rows)

    def chain(self) -> int | None:
        """Where the last traceback begins, with those it came from; None where there is none."""
        headers = traceback_headers(self.lines)
        if not headers:
            return None
        start = headers.pop()
        while headers and any(line in _CHAINED for line in self.lines[headers[-1] : start]):
            start = headers.pop()
        return start

    def first_exception(self) -> str:
        """What began the last traceback: its line, where another followed while it was handled."""
        start = self.chain()
        if start is None or not any(line in _CHAINED for line in self.lines[start:]):
            return ""
        index = self._exception_of(start)
        return "" if index is None else unmargined(self.lines[index])

    def last_exception(self) -> int | None:
        """Which line says what the last traceback ended in."""
        headers = traceback_headers(self.lines)
        return self._exception_of(headers[-1]) if headers else None

    def traceback(self) -> tuple[str, ...]:
        """The lines of the last traceback and all after it, with those it came from; of a group's
        no more than its first exception."""
        start = self.chain()
        if start is None:
            return ()
        header = traceback_headers(self.lines)[-1]
        if not is_group(self.lines[header]):
            return self.lines[start:]
        own, first = group_parts(self.lines[header + 1 :])
        return (*self.lines[start : header + 1], *own, *first)

    def _exception_of(self, header: int) -> int | None:
        below = header + 1
        if is_group(self.lines[header]):
            index = exception_line(group_parts(self.lines[below:])[0])
            return None if index is None else below + index
        rest = range(below, len(self.lines))
        return next((i for i in rest if self.lines[i][:1] not in ("", " ", "\t")), None)

    def number(self, index: int) -> int | None:
        """Which line of the file `lines[index]` is, from 1; None in a file too long to count."""
        before = _newlines(self.path, self.offset)
        return None if before is None else before + index + 1


def read_tail(path: Path, size: int = TAIL_BYTES) -> Tail:
    """Nothing where the file is gone or cannot be read: others say why then."""
    try:
        data, end = _packed_end(path, size) if path.suffix == ".gz" else _end(path, size)
    except (OSError, EOFError, zlib.error):
        return Tail(path)
    offset = end - len(data)
    if offset:
        cut = data.find(b"\n") + 1
        data, offset = data[cut:], offset + cut
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    rows = [_clean(line) for line in lines]
    times, texts, streams = (tuple(row[i] for row in rows) for i in range(3))
    return Tail(path, texts, offset, end, times, streams)


def read_rank_tail(node_dir: Path, rank: int, size: int = TAIL_BYTES) -> Tail:
    """Of the newest part of a rank's log that has anything in it. Empty lines stand in place of
    exceptions that Python ignored."""
    try:
        found = parts(node_dir, rank)
    except UserError:
        found = ()
    tail = Tail(node_dir / f"rank-{rank:05d}.log")
    for path in reversed(found):
        tail = read_tail(path, size)
        if tail.lines:
            break
    ignored = ignored_lines(tail.lines)
    lines = tuple("" if i in ignored else line for i, line in enumerate(tail.lines))
    return replace(tail, lines=lines)


def _end(path: Path, size: int) -> tuple[bytes, int]:
    """The last bytes of a file, and how many it has."""
    with open_file(path) as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - size))
        return file.read(size), end


def _packed_end(path: Path, size: int) -> tuple[bytes, int]:
    data, end = b"", 0
    with _opened(path) as file:
        while block := file.read(_CHUNK):
            data, end = (data + block)[-size:], end + len(block)
    return data, end


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """Its text, unpacked where it is packed."""
    with open_file(path) as file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked


def unprefixed(line: str) -> str:
    return _PREFIX.sub("", line)


def _clean(raw: str) -> tuple[str, str, str]:
    """Stamp, text and stream of a line."""
    line = parse(raw[: LONGEST + 40])
    text = unprefixed(plain(last_state(line.text if line else raw[:LONGEST])))
    return (line.time, text, line.stream or "") if line else ("", text, "")


def _newlines(path: Path, before: int) -> int | None:
    if before > _COUNTED_BYTES:
        return None
    count = 0
    try:
        with _opened(path) as file:
            while before > 0 and (data := file.read(min(_CHUNK, before))):
                count += data.count(b"\n")
                before -= len(data)
    except (OSError, EOFError, zlib.error):
        return None
    return count
