"""Composed lines of many logs, read and merged by several processes at once.

Each child merges a share of the logs and hands on what it has through a pipe; the parent merges
the children's streams. No log is read twice, and a child waits while its pipe is full.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.errors import UserError
from orchestrator.logs.composed import Source, merge_composed

WORTH = 64 * 1024 * 1024
"""Bytes of logs below which one process has it done as soon."""
AT_MOST = 4
"""Children: more of them wait for the parent."""
_FRAME = struct.Struct("<IB")
"""Bytes that follow, and what they are."""
_LINES, _ERROR, _END = 0, 1, 2
_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", 1031)
_PIPE = 1 << 20


@contextmanager
def spread(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """As many sources as there are processors to read them, which give the same lines.

    To be used by a process with one thread.
    """
    count = min(AT_MOST, len(os.sched_getaffinity(0)), len(sources))
    children: list[_Child] = []
    try:
        for number in range(count):
            children.append(_Child(sources[number::count], children))
        yield list(children)
    finally:
        for child in children:
            child.end()


class _Child:
    """One process that merges its share; reads as a Source."""

    def __init__(self, sources: Sequence[Source], others: Sequence[_Child]) -> None:
        self._reading, writing = os.pipe()
        with contextlib.suppress(OSError):  # more than this user may have: it is slower then
            fcntl.fcntl(writing, _F_SETPIPE_SZ, _PIPE)
        self._pid = os.fork()
        if self._pid == 0:
            # One that still held another's pipe would keep it from seeing that nobody reads.
            for child in (self, *others):
                os.close(child._reading)
            _serve(sources, writing)
        os.close(writing)

    def read(self, _: int, /) -> list[str] | None:
        """Raises UserError where the child met one."""
        header = _read(self._reading, _FRAME.size)
        if len(header) < _FRAME.size:
            raise ChildProcessError("a process that merges logs has vanished")
        length, kind = _FRAME.unpack(header)
        data = _read(self._reading, length)
        if kind == _END:
            return None
        if kind == _ERROR:
            message, hint = json.loads(data)
            raise UserError(message, hint=hint)
        return data.decode("utf-8", "surrogateescape").split("\n")

    def end(self) -> None:
        os.close(self._reading)
        os.kill(self._pid, signal.SIGKILL)  # it may still write, and has nothing to tidy up
        os.waitpid(self._pid, 0)


def _serve(sources: Sequence[Source], writing: int) -> None:
    """In the child: never returns."""
    code = 1
    try:
        for batch in merge_composed(sources):
            _write(writing, _LINES, "\n".join(batch).encode("utf-8", "surrogateescape"))
        _write(writing, _END, b"")
        code = 0
    except UserError as error:
        _write(writing, _ERROR, json.dumps([error.message, error.hint]).encode())
    except (BrokenPipeError, KeyboardInterrupt):
        code = 0
    finally:
        os._exit(code)


def _write(descriptor: int, kind: int, data: bytes) -> None:
    view = memoryview(_FRAME.pack(len(data), kind) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, size: int) -> bytes:
    pieces = []
    while size and (data := os.read(descriptor, size)):
        pieces.append(data)
        size -= len(data)
    return b"".join(pieces)
