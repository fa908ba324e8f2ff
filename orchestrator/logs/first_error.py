"""The first error of all ranks: its line, or its traceback, and nothing after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.logs.level import Level, Levels
from orchestrator.logs.line import MARK, Entry

MOST = 500
"""Lines of one error that are shown."""
_PATIENCE = 20_000
"""Lines of other ranks after which an error is taken to be over."""


def first_error(batches: Iterable[list[Entry]]) -> Iterator[list[Entry]]:
    """The lines of the first error in `batches`, which are in time order, as they come.

    Reads no further than its end. An empty batch gives an empty one, so that a follower goes on.
    """
    levels = Levels()
    found: tuple[int, str] | None = None
    shown = others = 0
    for entries in batches:
        lines: list[Entry] = []
        for entry in entries:
            of = entry[1], entry[2][MARK].lower()
            if found is not None and of != found:
                others += 1
                continue
            error = levels.of(entry) >= Level.ERROR
            if found is not None and not error:
                yield lines
                return
            if error:
                found, others, shown = of, 0, shown + 1
                lines.append(entry)
        yield lines
        if found is not None and (others > _PATIENCE or shown >= MOST):
            return
