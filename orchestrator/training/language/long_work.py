"""Work of minutes or hours that some ranks do while the others wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from orchestrator.training.agreement import together
from orchestrator.training.process_group import Rank

T = TypeVar("T")
GoOn = Callable[[], None]
"""To be called now and then by the work: raises Abandoned once another rank has failed."""
TICK_SECONDS = 60.0
"""Between two rounds of talk: well below the half hour after which gloo gives a peer up."""


class Abandoned(Exception):
    """The work has become pointless; nobody is told."""


def done_by_some(work: Callable[[GoOn], T] | None, rank: Rank) -> T | None:
    """Run `work` on the ranks that have some, and wait for them on the others.

    All ranks call it. Whoever waits stands in a collective that the workers join once a minute:
    however long the work takes no timeout strikes, and a worker that dies breaks the connection.
    A UserError of one is raised on all, as in `together`.
    """
    stop = threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise Abandoned

    thread = ThreadPoolExecutor(1, thread_name_prefix="long-work")
    future = None if work is None else thread.submit(work, go_on)
    try:
        _wait_for_all(future, rank)
    finally:
        stop.set()
        thread.shutdown(wait=False)
    with together(rank):
        if future is None or not future.done() or isinstance(future.exception(), Abandoned):
            return None  # where another rank has failed, its error comes out at the block's end
        return future.result()


def gathered(mine: T, rank: Rank) -> list[T]:
    """Every rank's, in the order of ranks; all call it."""
    if rank.world_size == 1:
        return [mine]
    found: list[Any] = [None] * rank.world_size
    dist.all_gather_object(found, mine)
    return found


def _wait_for_all(future: Future[T] | None, rank: Rank) -> None:
    """Until no rank works any more, or one has failed."""
    while True:
        if future is not None:
            wait([future], timeout=TICK_SECONDS)
        working = future is not None and not future.done()
        failed = future is not None and future.done() and future.exception() is not None
        state = torch.tensor([int(working), int(failed)])
        if rank.world_size > 1:
            dist.all_reduce(state)
        anyone_works, anyone_failed = state.tolist()
        if anyone_failed or not anyone_works:
            return
