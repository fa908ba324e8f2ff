"""Have this node's ranks print where they stand: Python's faulthandler does, for SIGABRT."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable

from orchestrator.agent.ending import STEP
from orchestrator.agent.processes import Process, catches, process_table, send
from orchestrator.agent.watch import shims_by_rank

_SHELLS = ("bash", "dash", "ksh", "sh", "zsh")
"""Those have a handler too, where they are to do something at their end."""
_STILL_SECONDS = 2.0
"""How long the ranks of all nodes stand still before any is aborted: the agents look twice a
second, and their clocks may differ."""
_STACK_SECONDS = 8.0
"""How long ranks may take to print their stacks and end of it."""


def take_stacks(wait: Callable[[float], None], *, others: bool) -> None:
    """Before ranks are ended. `wait` is called all the while, with seconds; `others`: whether
    other nodes have ranks, too, and an agent that does the same at this moment."""
    launchers, ranks = _hold_launchers(), _hold_ranks()
    began = time.monotonic()
    while others and time.monotonic() < began + _STILL_SECONDS:
        wait(STEP)
    _abort(ranks)
    began = time.monotonic()
    while ranks and time.monotonic() < began + _STACK_SECONDS and shims_by_rank():
        wait(STEP)
    for launcher in launchers:
        send(launcher, signal.SIGCONT)


def _hold_launchers() -> list[Process]:
    """Stop whoever started the shims, and has to be sent SIGCONT later. A launcher that sees one
    rank end sends SIGTERM to the others, which may be in the middle of printing."""
    table = process_table()
    pids = {shim.ppid for shim in shims_by_rank().values()} - {os.getpid()}
    held = [table[pid] for pid in pids if pid in table]
    for process in held:
        send(process, signal.SIGSTOP)
    return held


def _hold_ranks() -> list[Process]:
    """Stop the uppermost process of each rank that has a handler for SIGABRT, which is where
    PYTHONFAULTHANDLER=1 has put one. Whoever ran on would see a peer go within milliseconds, and
    raise an error instead of telling where it stood."""
    ranks = _ranks()
    for process in ranks:
        send(process, signal.SIGSTOP)
    for process in ranks:
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_CORE)
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, hard))
    return ranks


def _abort(held: list[Process]) -> None:
    """They print their stacks, end of it, and leave no core. SIGABRT comes first, being the lower
    number."""
    for process in held:
        send(process, signal.SIGABRT)
        send(process, signal.SIGCONT)


def _ranks() -> list[Process]:
    table = process_table()
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.ppid, []).append(process)
    ranks: list[Process] = []
    queue = [process for shim in shims_by_rank().values() for process in children.get(shim.pid, [])]
    while queue:
        process = queue.pop()
        if process.name not in _SHELLS and catches(process.pid, signal.SIGABRT):
            ranks.append(process)
        else:  # a shell or a wrapper around the interpreter
            queue += children.get(process.pid, [])
    return ranks
