"""What a run's state is made of. Pure data."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    SUBMITTING = "submitting"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    OUT_OF_MEMORY = "out-of-memory"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time-limit"
    NODE_FAILURE = "node-failure"
    CANCELLED = "cancelled"
    LAUNCH_ERROR = "launch-error"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        return self not in (State.SUBMITTING, State.PENDING, State.RUNNING, State.UNKNOWN)


class Failure(NamedTuple):
    """The first rank of a node that failed, as its agent saw it."""

    node: int
    rank: int
    code: int | None
    signal: int | None
    t: float
    """Epoch seconds by that node's clock."""
    message: str

    @property
    def from_outside(self) -> bool:
        """SIGKILL or SIGTERM: an out-of-memory killer, a preemption, a time limit, a person."""
        return self.signal in (9, 15) or self.code in (-9, -15, 137, 143)


class NodeState(NamedTuple):
    node: int
    host: str
    started: float
    ranks: dict[int, int]
    """Exit code of each rank that left an exit record (minus the signal that ended it)."""
    ended: float | None = None
    rc: int | None = None
    reason: str = ""
    """completed, rank-failed, launch-failed, setup-failed, check-failed, terminated, stopped (its
    agent had asked the ranks to) or hang."""
    message: str = ""
    """The agent's own words where no rank can be named."""
    failure: Failure | None = None


class RunState(NamedTuple):
    state: State
    reason: str
    """One sentence."""
    final: bool = False
    """Known for good: no scheduler need be asked again."""
    attempt: int | None = None
    """The newest attempt, None before the first began."""
    attempts: tuple[int, ...] = ()
    job_id: str | None = None
    submitted: float | None = None
    """This and the next two in epoch seconds; `started` is the newest attempt's."""
    started: float | None = None
    ended: float | None = None
    nodes: tuple[NodeState, ...] = ()
    """Of the newest attempt."""
    failure: Failure | None = None
    """The earliest one over all nodes: the others failed because of it."""

    @property
    def words(self) -> str:
        """State and sentence, without saying the same twice."""
        plain = self.reason.rstrip(".").lower() == self.state.value
        return self.state.value if plain else f"{self.state.value}: {self.reason}"

    @property
    def ranks(self) -> dict[int, int]:
        return {rank: code for node in self.nodes for rank, code in node.ranks.items()}

    @property
    def all_nodes_ended(self) -> float | None:
        """When the last node ended, None while one has not reported its end."""
        ends = [node.ended for node in self.nodes]
        return None if not ends or None in ends else max(end for end in ends if end is not None)

    @property
    def last_end(self) -> float | None:
        return max((node.ended for node in self.nodes if node.ended is not None), default=None)
