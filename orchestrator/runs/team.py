"""One thing done to thousands of items by this process and copies of it.

A copy is a fork, so it begins at once with all that is imported; it keeps what it learns about its
share of the items until the team is left, and items that were its own go to it again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

Item = TypeVar("Item")
Work = Callable[[Any], Any]


class _Copy(NamedTuple):
    pid: int
    orders: BinaryIO
    answers: BinaryIO


class Team:
    """`size` processes, this one among them; they end with the `with` block."""

    def __init__(self, size: int) -> None:
        self._copies: list[_Copy] = []
        self._size = size

    def __enter__(self) -> Self:
        try:
            for _ in range(self._size - 1):
                self._copies.append(_fork(self._copies))
        except OSError:  # as many as this user may have: fewer do it, too
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

    def map(self, work: Work, items: Sequence[Item], key: Callable[[Item], str]) -> list[Any]:
        """`work`, a function of a module, of each of `items`, in order; those of the same `key` are
        always done by the same process. Raises what `work` raises."""
        owners = [hash(key(item)) % self._size for item in items]
        shares: list[list[Item]] = [[] for _ in range(self._size)]
        for owner, item in zip(owners, items, strict=True):
            shares[owner].append(item)
        for copy, share in zip(self._copies, shares[1:], strict=True):
            _send(copy, work, share)
        done = [iter([work(item) for item in shares[0]])]
        for copy, share in zip(self._copies, shares[1:], strict=True):
            done.append(iter(_receive(copy, work, share)))
        return [next(done[owner]) for owner in owners]


def _fork(others: Sequence[_Copy]) -> _Copy:
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
        os.close(orders[1])
        os.close(answers[0])
        for other in others:  # else they would never see the end of their orders
            os.close(other.orders.fileno())
            os.close(other.answers.fileno())
        _obey(os.fdopen(orders[0], "rb"), os.fdopen(answers[1], "wb"))
    finally:
        os._exit(0)  # nothing of what the first process had open is flushed twice


def _obey(orders: BinaryIO, answers: BinaryIO) -> None:
    """Until there are no more orders; an error ends it, and is met again by the first process."""
    while True:
        work, items = pickle.load(orders)  # noqa: S301 - from our own process
        pickle.dump([work(item) for item in items], answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _send(copy: _Copy, work: Work, share: Sequence[Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # it was killed, as `_receive` will see
        pickle.dump((work, share), copy.orders, pickle.HIGHEST_PROTOCOL)
        copy.orders.flush()


def _receive(copy: _Copy, work: Work, share: Sequence[Any]) -> list[Any]:
    try:
        found: list[Any] = pickle.load(copy.answers)  # noqa: S301 - from our own process
    except (EOFError, pickle.UnpicklingError):
        return [work(item) for item in share]
    return found
