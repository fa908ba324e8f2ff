"""Where a reader of a rank's log stands, and all that another one needs to go on from there."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.logs.line import BEGINNING


class Position(NamedTuple):
    """A place in a rank's log: which part, and how many bytes of it lie before."""

    part: int = 0
    offset: int = 0


START = Position()


class State(NamedTuple):
    """All that a reader needs to go on where another one stopped."""

    position: Position = START
    stamp: str = BEGINNING
    held: tuple[tuple[str, str], ...] = ()
    """Stream and text of the pieces that have no newline yet."""
