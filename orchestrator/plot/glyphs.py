"""The characters and colours that pictures are made of. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "white")


@dataclass(frozen=True)
class Glyphs:
    braille: bool
    upright: str
    tick: str
    corner: str
    level: str
    down: str
    restart: str
    dot: str
    """The second quantity of a panel."""
    bad: str
    """What is not finite."""


UNICODE = Glyphs(True, "│", "┤", "└", "─", "┬", "┊", "●", "\N{MULTIPLICATION SIGN}")
ASCII = Glyphs(False, "|", "+", "+", "-", "+", ":", "o", "x")


def colour_of(number: int) -> str:
    """Of the run with that number, in all panels alike."""
    return COLOURS[number % len(COLOURS)]
