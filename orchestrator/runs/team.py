"""Work on thousands of things, done by this process and copies of it.

A copy is a fork, so it begins at once with all that is imported and read; it keeps what it learns
about the things that it took until the team is left, and what follows about those goes to it again.
Between the processes travel plain values only: tuples, lists, dicts, texts, numbers. That takes a
fifth of the time that pickle does.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

_LENGTH = 8
"""Bytes before each value, which say how many it takes."""
_FORMAT = 2
"""Of marshal: the last that does not look for what it has written before, at half the time."""
_NUMBER = 4
"""Bytes of a number in the queue."""
_PIECE, _PIECES = 32, 1000
"""Things taken at a time at the least, and times at the most: the smallest pipe has room for so
many numbers."""
Work = Callable[[int, int], list[Any]]
"""A method of the member: what it tells of each of the things from one number to before another."""
More = Callable[[Sequence[Any]], list[Any]]
"""A method of the member: what it tells of each of these."""


class _Copy(NamedTuple):
    pid: int
    orders: BinaryIO
    answers: BinaryIO


class Team:
    """`size` processes, this one among them; they end with the `with` block. `member` does the
    work: in each copy, its copy."""

    def __init__(self, size: int, member: object) -> None:
        self._copies: list[_Copy] = []
        self._size = size
        self._member = member
        self._queue: list[int] = []
        """A pipe with the numbers of pieces that nobody has taken: where they come out, for all,
        and where this process puts them in, until it has."""
        self._owners: list[int] = []
        """Who took each of the things: 0 for this process."""

    def __enter__(self) -> Self:
        self._queue = list(os.pipe())
        with contextlib.suppress(OSError):  # as many as this user may have: fewer do it, too
            for _ in range(self._size - 1):
                self._copies.append(_fork(self._member, self._queue, self._copies))
        self._size = 1 + len(self._copies)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for copy in self._copies:
            if kind is not None:
                os.kill(copy.pid, signal.SIGKILL)  # it may be at work for seconds yet
            copy.answers.close()
            with contextlib.suppress(BrokenPipeError):  # orders that a lost one never took
                copy.orders.close()
            with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored there is none
                os.waitpid(copy.pid, 0)
        for end in self._queue:
            os.close(end)

    def share(
        self, work: Work, count: int, meanwhile: Callable[[], object] | None = None
    ) -> list[Any]:
        """What `work` tells of each of `count` things, in order, each taken by whoever is free.
        Once in a team's life. `meanwhile` is done by this process before it takes any, where there
        are copies that take them already. Raises what either raises."""
        size = max(_PIECE, count // _PIECES + 1)
        pieces = range(-(-count // size))
        fill = self._queue.pop()
        os.write(fill, b"".join([piece.to_bytes(_NUMBER, "big") for piece in pieces]))
        os.close(fill)
        for copy in self._copies:
            _send(copy, (work.__name__, None, size, count))
        if meanwhile is not None and self._copies:
            meanwhile()
        done = _take_pieces(self._queue[0], work, size, count)
        owner = dict.fromkeys(done, 0)
        for number, copy in enumerate(self._copies, 1):
            told: dict[int, list[Any]] = _receive(copy.answers) or {}
            done |= told
            owner |= dict.fromkeys(told, number)
        for piece in pieces:
            if piece not in done:  # taken by one that was lost
                done[piece], owner[piece] = _do(work, piece, size, count), 0
        self._owners = [owner[piece] for piece in pieces for _ in done[piece]]
        return [told for piece in pieces for told in done[piece]]

    def again(self, work: More, asked: Sequence[tuple[int, Any]]) -> list[Any]:
        """What `work` tells of each, in order: the number of one of the things, and what is asked
        of it, by the process that had it. Raises what `work` raises."""
        shares: list[list[Any]] = [[] for _ in range(self._size)]
        for number, what in asked:
            shares[self._owners[number]].append(what)
        for copy, share in zip(self._copies, shares[1:], strict=True):
            _send(copy, (work.__name__, share, 0, 0))
        told = [iter(work(shares[0]))]
        for copy, share in zip(self._copies, shares[1:], strict=True):
            answers = _receive(copy.answers)
            told.append(iter(work(share) if answers is None else answers))
        return [next(told[self._owners[number]]) for number, _ in asked]


def _fork(member: object, queue: Sequence[int], others: Sequence[_Copy]) -> _Copy:
    orders, answers = os.pipe(), os.pipe()
    try:
        pid = os.fork()
    except OSError:
        for end in (*orders, *answers):
            os.close(end)
        raise
    if pid:
        os.close(orders[0])
        os.close(answers[1])
        return _Copy(pid, os.fdopen(orders[1], "wb"), os.fdopen(answers[0], "rb"))
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to tell
        for end in (orders[1], answers[0], queue[1]):  # else nobody would ever see their end
            os.close(end)
        for other in others:
            os.close(other.orders.fileno())
            os.close(other.answers.fileno())
        _obey(member, queue[0], os.fdopen(orders[0], "rb"), os.fdopen(answers[1], "wb"))
    finally:
        os._exit(0)  # nothing of what the first process had open is flushed twice


def _obey(member: object, queue: int, orders: BinaryIO, answers: BinaryIO) -> None:
    """Until there are no more orders; an error ends it, and is met again by the first process."""
    while (order := _receive(orders)) is not None:
        name, items, size, count = order
        work = getattr(member, name)
        told = _take_pieces(queue, work, size, count) if items is None else work(items)
        _give(answers, told)


def _take_pieces(queue: int, work: Work, size: int, count: int) -> dict[int, list[Any]]:
    """One after the other, until nobody has any left; what `work` tells of each."""
    done = {}
    while number := os.read(queue, _NUMBER):
        piece = int.from_bytes(number, "big")
        done[piece] = _do(work, piece, size, count)
    return done


def _do(work: Work, piece: int, size: int, count: int) -> list[Any]:
    return work(piece * size, min((piece + 1) * size, count))


def _send(copy: _Copy, order: tuple[Any, ...]) -> None:
    with contextlib.suppress(BrokenPipeError):  # it was killed, as no answer will tell
        _give(copy.orders, order)


def _give(pipe: BinaryIO, value: Any) -> None:
    data = marshal.dumps(value, _FORMAT)
    pipe.write(len(data).to_bytes(_LENGTH, "big") + data)
    pipe.flush()


def _receive(pipe: BinaryIO) -> Any:
    """None where the pipe ended before a value was whole."""
    size = int.from_bytes(pipe.read(_LENGTH), "big")
    data = pipe.read(size)
    return marshal.loads(data) if size and len(data) == size else None  # noqa: S302 - our own
