"""Which of several nodes' first failures began it, and whether the machine is to blame. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.agent.echo import is_echo

_OBEYED = (143, -15)
"""Exit codes of a rank that was told to end, and did."""
_DEVICE = re.compile(
    r"CUDA error|CUDNN_STATUS|ncclUnhandledCudaError|ncclSystemError|unhandled system error"
    r"|\bNET/IB\b|\bibv_\w+|\bECC\b|uncorrectable|device-side|\bXid\b",
    re.I,
)
_MISSED = 2.0
"""Seconds within which the failures of several nodes may be one."""


class Failure(NamedTuple):
    """What a node's agent reported of the first of its ranks that failed."""

    t: float
    """By its node's clock."""
    node: int
    about: Mapping[str, Any]
    """`first_failure` of its node_ended."""

    @property
    def signal(self) -> int | None:
        number = self.about.get("signal")
        return number if isinstance(number, int) else None

    @property
    def is_echo(self) -> bool:
        return self.signal is None and is_echo(str(self.about.get("message")))

    @property
    def hearsay(self) -> int:
        """By how much less it may be the beginning: torch's watchdog aborts ranks that waited in
        vain, and those whose device failed; a launcher tells its ranks to end when it misses
        another's."""
        if self.about.get("code") in _OBEYED:
            return 3
        if self.signal == signal.SIGABRT:
            return 1
        return 2 * self.is_echo


def failures_of(ended: Mapping[int, Mapping[str, Any]], *, warned: bool) -> list[Failure]:
    """One of every node that names one, the likeliest to have begun it first: echoes come last,
    since the clocks of two nodes may be seconds apart. `ended`: node rank to its node_ended.

    After a warning a rank that did as it was told has not failed, though the warning may have
    reached its own agent too late: the ranks of other nodes have told it.
    """
    found = []
    for node, event in ended.items():
        about = event.get("first_failure")
        if not isinstance(about, Mapping) or event.get("reason") in ("stopped", "completed"):
            continue
        if not (warned and about.get("code") in _OBEYED):
            found.append(Failure(float(about.get("t") or 0), node, about))
    found.sort(key=lambda one: (one.hearsay, one.t, one.node))
    # Whoever is killed outright is missed by others at once, and which of them is noticed first is
    # chance; nothing of ours kills so early.
    killed = [
        one for one in found if one.signal == signal.SIGKILL and one.t <= found[0].t + _MISSED
    ]
    return [*killed, *(one for one in found if one not in killed)]


def is_the_machines(failures: Sequence[Failure]) -> bool:
    """Whether the first of them is a signal nobody of ours sent, or a device's own words. Where
    ranks of several nodes were aborted they waited for each other."""
    first = failures[0]
    if first.signal == signal.SIGABRT:
        return sum(one.signal == signal.SIGABRT for one in failures) == 1
    words = str(first.about.get("message"))
    return first.signal is not None or bool(_DEVICE.search(words) and not is_echo(words))
