"""Logs of one part each, merged by several processes at once, each for a slice of time in turn.

A process merges all logs over its slice. The one whose slice is next writes to the output as it
goes, the others keep what they have until it is their turn: it goes round as a token with the
states of all readers at the end of the slice before. A process that began elsewhere, since a line
was open for long or a clock stepped back, begins again from there; so the states decide, and
where slices seem to begin is a guess.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import select
import signal
import struct
import traceback
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from orchestrator.agent.linux import keep_freed_memory
from orchestrator.errors import UserError
from orchestrator.logs.composed import merge_composed
from orchestrator.logs.cuts import begin_of, cuts
from orchestrator.logs.output import Output, write_all
from orchestrator.logs.position import Position, State
from orchestrator.logs.reader import LogReader
from orchestrator.logs.source import FileSource
from orchestrator.logs.text import TextLines

SLICE = 32 * 1024 * 1024
"""Bytes of all logs in a slice, about."""
_KEPT = 32 * 1024 * 1024
"""Bytes that a process keeps at most until it is its turn."""
_AT_MOST = 8
"""Processes."""
_MANY = 2048
"""Logs: of more, a slice holds too little of each."""
_FRAME = struct.Struct("<I")
_WRITTEN = "written"


def write_slices(
    readers: Sequence[LogReader],
    lines: TextLines,
    output: Output,
    *,
    count: int | None = None,
    size: int = SLICE,
) -> bool:
    """Whether it was done: not where logs have parts, or there is no second processor.

    `count` processes, as a rule one a processor. To be used by a process with one thread. `readers`
    stand at the start. Raises UserError, and OSError where it cannot be written: BrokenPipeError
    where nobody reads on.
    """
    count = count or min(_AT_MOST, len(os.sched_getaffinity(0)))
    if count == 1 or len(readers) > _MANY or not all(reader.is_one_file for reader in readers):
        return False
    stamps = cuts(readers, size)
    count = min(count, len(stamps) + 1)
    if count == 1:
        return False
    turns = [os.pipe() for _ in range(count)]
    reading, writing = os.pipe()
    pids: list[int] = []
    parent = os.getpid()
    try:
        for number in range(count):
            pids.append(os.fork())
            if pids[-1] == 0:
                # Whoever held another's pipe would not let it see that nobody is there.
                ring = _Ring(turns[number][0], turns[(number + 1) % count][1])
                for descriptor in {reading, *(end for pair in turns for end in pair)}:
                    if descriptor not in ring:
                        os.close(descriptor)
                worker = _Worker(readers, lines, output, stamps, ring, parent)
                _serve(worker, number, count, writing)
        os.close(writing)
        for pair in turns:
            for end in pair:
                os.close(end)
        _wait(reading)
    finally:
        os.close(reading)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)  # it may still merge, and has nothing to tidy up
            os.waitpid(pid, 0)
    return True


def _wait(reading: int) -> None:
    """Until all is written. Raises what ended it before."""
    with os.fdopen(reading, "rb", closefd=False) as file:
        told = file.readline()
    if not told:
        raise ChildProcessError("the processes that merge logs have vanished")
    outcome = json.loads(told)
    if isinstance(outcome, int):
        raise OSError(outcome, os.strerror(outcome))  # of the class that belongs to the number
    if outcome != _WRITTEN:
        raise UserError(outcome[0], hint=outcome[1])


class _Ring(NamedTuple):
    """Pipes from the process before and to the one after."""

    before: int
    after: int

    def ready(self) -> bool:
        return bool(select.select([self.before], [], [], 0)[0])

    def take(self) -> list[State]:
        """Waits. Raises EOFError where the process before is gone."""
        (length,) = _FRAME.unpack(_read(self.before, _FRAME.size))
        found = json.loads(_read(self.before, length))
        return [
            State(Position(*position), stamp, tuple((mark, text) for mark, text in held))
            for position, stamp, held in found
        ]

    def give(self, states: Sequence[State]) -> None:
        data = json.dumps(states).encode()
        write_all(self.after, _FRAME.pack(len(data)) + data)


class _Worker(NamedTuple):
    readers: Sequence[LogReader]
    lines: TextLines
    output: Output
    stamps: Sequence[str]
    ring: _Ring
    parent: int

    def work(self, number: int, count: int) -> bool:
        """Every `count`-th slice from `number` on; whether that was the end."""
        starts = [reader.state for reader in self.readers]
        last = len(self.stamps)
        for at in range(number, last + 1, count):
            if at > 0:
                stamp = self.stamps[at - 1]
                starts = [
                    begin_of(reader, stamp, start.position.offset)
                    for reader, start in zip(self.readers, starts, strict=True)
                ]
            starts = self._slice(at, starts)
            if at < last:
                self.ring.give(starts)
        return last % count == number

    def _slice(self, at: int, starts: Sequence[State]) -> list[State]:
        """Write one and return how the readers stand at its end."""
        sources = self._sources(at, starts)
        kept: list[bytes] = []
        size, is_next = 0, at == 0
        for data in merge_composed(sources):
            if not is_next:
                kept.append(bytes(data))
                size += len(data)
                if size < _KEPT and not self.ring.ready():
                    continue
                true = self.ring.take()
                if not _agree(starts, true, self.stamps[at - 1]):
                    return self._again(at, true)
                is_next = True
                self._put(*kept)
                kept.clear()
                continue
            self._put(data)
        if not is_next:
            true = self.ring.take()
            if not _agree(starts, true, self.stamps[at - 1]):
                return self._again(at, true)
            self._put(*kept)
        return [source.reader.state for source in sources]

    def _again(self, at: int, starts: Sequence[State]) -> list[State]:
        sources = self._sources(at, starts)
        for data in merge_composed(sources):
            self._put(data)
        return [source.reader.state for source in sources]

    def _sources(self, at: int, starts: Sequence[State]) -> list[FileSource]:
        until = self.stamps[at] if at < len(self.stamps) else None
        return [
            FileSource(reader.standing(state), self.lines, self.output, until)
            for reader, state in zip(self.readers, starts, strict=True)
        ]

    def _put(self, *pieces: bytes | memoryview) -> None:
        if os.getppid() != self.parent:
            raise EOFError  # nobody else would end it
        for data in pieces:
            self.output.write(data)


def _agree(guessed: Sequence[State], true: Sequence[State], stamp: str) -> bool:
    """Whether lines read from `guessed` on, from `stamp` on, are those that follow `true`."""
    return all(
        one.position == other.position and one.held == other.held and other.stamp < stamp
        for one, other in zip(guessed, true, strict=True)
    )


def _serve(worker: _Worker, number: int, count: int, telling: int) -> NoReturn:
    """In the child."""
    keep_freed_memory(_KEPT)
    gc.disable()  # millions of lines, and none in a cycle
    outcome: int | str | list[str | None] | None = None
    try:
        if worker.work(number, count):
            outcome = _WRITTEN
    except UserError as error:
        outcome = [error.message, error.hint]
    except OSError as error:
        outcome = error.errno or errno.EIO
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception:
        traceback.print_exc()  # the parent says no more than that this process is gone
    finally:
        if outcome is not None:
            write_all(telling, json.dumps(outcome).encode() + b"\n")
        os._exit(0)


def _read(descriptor: int, size: int) -> bytes:
    """Raises EOFError."""
    pieces = []
    while size:
        data = os.read(descriptor, size)
        if not data:
            raise EOFError
        pieces.append(data)
        size -= len(data)
    return b"".join(pieces)
