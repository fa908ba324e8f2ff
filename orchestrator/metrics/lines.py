"""The last lines of a file of JSON objects, with their numbers. Bounded memory."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNTED = 64 << 20
"""Bytes; of a larger file lines are not counted."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Line:
    number: int | None
    """From 1; None where the file is too long to count its lines."""
    record: dict[str, Any]


def last_lines(path: Path, size: int, version: int = 1, *, counted: int = COUNTED) -> list[Line]:
    """The whole objects of this `version` in the last `size` bytes. Torn and foreign lines are
    left out, a file that is missing or none is an empty one. Lines are numbered in files of up to
    `counted` bytes, or where `size` is all of it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return []
        begin = max(0, status.st_size - size)
        before = _newlines(descriptor, begin) if begin == 0 or status.st_size <= counted else None
        data = _read(descriptor, begin, status.st_size)
    except OSError:
        return []
    finally:
        os.close(descriptor)
    lines = data.split(b"\n")[:-1]
    found = []
    for place, line in enumerate(lines):
        record = _parse(line) if place or not begin else None  # the first may be half of one
        if record is not None and record.get("v") == version:
            found.append(Line(None if before is None else before + place + 1, record))
    return found


def _newlines(descriptor: int, end: int) -> int:
    count = 0
    for begin in range(0, end, _BLOCK):
        count += os.pread(descriptor, min(_BLOCK, end - begin), begin).count(b"\n")
    return count


def _read(descriptor: int, begin: int, end: int) -> bytes:
    parts = []
    while begin < end and (part := os.pread(descriptor, min(_BLOCK, end - begin), begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def number(record: dict[str, Any], key: str) -> float | None:
    """A finite number that stands there, else None."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)
