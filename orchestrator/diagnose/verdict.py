"""What is told: who failed first, why, on what evidence, and what to do. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.diagnose.performance import Finding


@dataclass(frozen=True)
class Evidence:
    path: str
    """In the run folder where it lies there, else as it was printed."""
    line: int | None
    """From 1; None where the file is too long to count its lines."""
    text: str
    rank: int | None = None
    """Whose log it is."""


@dataclass(frozen=True)
class First:
    """The rank that began it."""

    rank: int
    node: int | None
    host: str
    device: str
    """As CUDA names it; "" on CPU."""
    exit_code: int | None
    signal: int | None
    exception: str
    """Type of the exception that ended it, "" where none did."""
    message: str
    ended: float | None
    """Epoch seconds by its node's clock."""


@dataclass(frozen=True)
class Others:
    """Ranks that ended because of it."""

    what: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Stand:
    """Ranks that stood at the same place when they were ended, or timed out."""

    ranks: tuple[int, ...]
    call: str
    """The innermost function, or the collective; "" where the rank left no stack."""
    path: str = ""
    """The innermost line of the person's own code."""
    line: int | None = None
    stopped: bool = False
    """The others waited for these."""


@dataclass(frozen=True)
class Before:
    """An earlier attempt, of a run that went on."""

    attempt: int
    state: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    kind: str
    """failed, ended (nothing to blame), running, waiting, completed or unknown."""
    state: str
    """The class: a word of `ptx status`, or hang."""
    sentence: str
    """All of it in one line."""
    attempt: int | None = None
    first: First | None = None
    node: int | None = None
    """The node that is to blame, where no rank is."""
    rule: str = ""
    """Id of the rule that knew it; "" where none did."""
    cause: str = ""
    """A sentence, "" where none is known."""
    next: str = ""
    evidence: tuple[Evidence, ...] = ()
    others: tuple[Others, ...] = ()
    before: Before | None = None
    unsure: tuple[int, ...] = ()
    """Ranks of which each may as well have been the first."""
    stands: tuple[Stand, ...] = ()
    """Of a hang: where each rank stood, those that stopped first, then the largest group."""
    findings: tuple[Finding, ...] = ()
    """What costs a run time that does not fail."""
