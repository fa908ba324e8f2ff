"""A line of a rank log: `2026-11-21T00:47:11.123456Z o text` (docs/architecture.md, rank log)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

STAMP = len("2026-11-21T00:47:11.123456Z")
MARK = STAMP + 1
TEXT = STAMP + 3
"""Where the stream's letter and the text stand in a stamped line."""

BEGINNING = "0000-00-00T00:00:00.000000Z"
"""Sorts before every real stamp."""

_BETWEEN = tuple([at for at, letter in enumerate(BEGINNING) if letter != "0"])
"""Where a stamp has no digit."""

FOREIGN = "?"
"""Mark of a line that bore no stamp; it is given the time of the line before it."""

Entry = tuple[str, int, str]
"""Stamp, index of the source, the whole line `<stamp> <mark> <text>`.

A plain tuple: hundreds of files hold millions of them, and zip makes one in 30 ns. The text may
hold surrogates, which stand for bytes that are not UTF-8 (surrogateescape).
"""

_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([oeOE])(?: |$)", re.ASCII)
_STREAMS = {"o": "stdout", "e": "stderr"}


class Line(NamedTuple):
    time: str
    """UTC, microseconds, as written."""
    stream: str | None
    """stdout or stderr; None for a foreign line."""
    text: str
    complete: bool
    """False when the writer stopped, or went on elsewhere, before the newline."""


def parse(line: str) -> Line | None:
    """The parts of one stamped line, or None when it bears no stamp."""
    found = _STAMPED.match(line)
    if found is None:
        return None
    mark = found[2]
    return Line(found[1], _STREAMS[mark.lower()], line[TEXT:], mark.islower())


def are_stamps(texts: Sequence[str]) -> bool:
    """Whether each is a stamp, told without a loop."""
    together, count = "".join(texts), len(texts)
    return (
        together.isascii()
        and len(together) == STAMP * count
        and len(together.encode().translate(None, b"0123456789")) == len(_BETWEEN) * count
        and all(together[at::STAMP] == BEGINNING[at] * count for at in _BETWEEN)
    )


def parts(entry: Entry) -> Line:
    """The parts of an entry of a reader, foreign lines included."""
    stamp, _, line = entry
    mark = line[MARK]
    return Line(stamp, _STREAMS.get(mark.lower()), line[TEXT:], not mark.isupper())


def compose(stamp: str, mark: str, text: str) -> str:
    return f"{stamp} {mark} {text}"


def stamp_of(epoch: float) -> str:
    """Epoch seconds as a stamp that compares with those in logs."""
    time = datetime.fromtimestamp(epoch, UTC).replace(tzinfo=None)
    return f"{time.isoformat(timespec='microseconds')}Z"


def last_state(text: str) -> str:
    """What a terminal would still show of a line that went back to its start.

    `\\r` at the end (of a CRLF, or of a bar that waits for its next state) ends a state.
    """
    if "\r" not in text:
        return text
    return text.rstrip("\r").rpartition("\r")[2]
