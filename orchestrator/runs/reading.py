"""Reading files that somebody else may have put there: never waiting, never without bound."""

from __future__ import annotations

import errno
import json
import os
import stat
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK, _LEAST = 1 << 20, 1 << 12
_JSON = json.JSONDecoder()
LARGEST = 10**9
"""Of any number that is counted: ranks, nodes, attempts. A larger one is damage."""
NUMBER = (float, int)
"""For isinstance: a union would be made anew at each look."""
END_OF_TIME = 253_402_214_400.0
"""31 December 9999, in epoch seconds: what is beyond is no time, and no calendar can show it."""


class Mark(NamedTuple):
    """What a file or folder looked like; any change of it changes this."""

    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, path: str) -> Mark | None:
        try:
            return cls.seen(os.stat(path))  # noqa: PTH116 - thousands a look: Path costs more
        except (OSError, ValueError):
            return None

    @classmethod
    def seen(cls, found: os.stat_result) -> Mark:
        return tuple.__new__(cls, (found.st_ino, found.st_mtime_ns, found.st_size))


def open_regular(path: str | Path) -> tuple[int, os.stat_result]:
    """A descriptor to read from, and what it looks like. Raises OSError, also for what is no
    regular file: the open of a FIFO that nobody writes to would never return."""
    descriptor = os.open(path, _FLAGS)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        return descriptor, found
    os.close(descriptor)
    raise _not_regular(path)


def open_file(path: str | Path) -> BinaryIO:
    """The same as a file object, which the caller closes. Raises OSError."""
    return open(open_regular(path)[0], "rb")  # noqa: PTH123 - a descriptor, not a path


def read_from(descriptor: int, size: int, expected: int = _BLOCK) -> bytes:
    """At most `size` bytes from where the descriptor stands, `expected` of them in one call: room
    that is not needed costs time too. Raises OSError."""
    parts = []
    block_size = max(min(expected + 1, _BLOCK), _LEAST)
    while size > 0:
        block = os.read(descriptor, min(size, block_size))
        parts.append(block)
        if len(block) < min(size, block_size):  # the end of a regular file
            break
        size -= len(block)
    return b"".join(parts) if len(parts) > 1 else parts[0]


def read_regular(path: str | Path, limit: int, offset: int = 0) -> tuple[os.stat_result, bytes]:
    """What a regular file looked like, then at most `limit` of its bytes from `offset` on. Raises
    OSError."""
    descriptor = os.open(path, _FLAGS)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _not_regular(path)
        if offset:
            os.lseek(descriptor, offset, os.SEEK_SET)
        expected = found.st_size - offset
        if not 0 <= expected < limit or expected >= _BLOCK:
            return found, read_from(descriptor, limit, expected)
        data = os.read(descriptor, expected + 1)
        if len(data) > expected:  # it grows
            data += read_from(descriptor, limit - len(data))
        return found, data
    finally:
        os.close(descriptor)


def _not_regular(path: str | Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))


def read_bytes(path: str | Path, limit: int) -> bytes:
    """All of a regular file. Raises OSError, also for one of more than `limit` bytes."""
    data = read_regular(path, limit + 1)[1]
    if len(data) > limit:
        raise OSError(errno.EFBIG, "larger than any such file", str(path))
    return data


def read_tail(path: str | Path, size: int) -> bytes:
    """At most the last `size` bytes of a regular file. Raises OSError."""
    descriptor, found = open_regular(path)
    try:
        os.lseek(descriptor, max(0, found.st_size - size), os.SEEK_SET)
        return read_from(descriptor, size, min(size, found.st_size))
    finally:
        os.close(descriptor)


def parse_json(data: bytes) -> Any:
    """What `json.loads` makes of UTF-8, in two thirds of the time for a few hundred bytes. Raises
    ValueError, RecursionError."""
    text = data.removeprefix(BOM_UTF8).decode("utf-8", "surrogatepass").strip(" \t\r\n")
    found, end = _JSON.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    return found
