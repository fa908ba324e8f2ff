"""Where to look in a checkpoint, and how much to read at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.training.checkpoint.pieces import MOST_WRITERS

Run = tuple[int, int, int]
"""First element in the target, first element in the source, count."""


def search_order(files: int, near: float) -> list[int]:
    """Numbers of files in the order in which a rank looks for its tensors.

    Where ranks of this number lay when they were fewer or more, and in turn with that where
    copies share the writing (see `Piece.share`): so a rank opens a few files of thousands.
    """
    middle = min(files - 1, int(near * files))
    around = sorted(range(files), key=lambda number: (abs(number - middle), -number))
    each = -(-files // MOST_WRITERS)
    shared = sorted(range(files), key=lambda number: (number % each, number))
    both = (number for pair in zip(around, shared, strict=True) for number in pair)
    return list(dict.fromkeys(both))


def windows(wanted: Iterable[Run], *, most: int, gap: int) -> Iterator[list[Run]]:
    """Runs, in order of the source, that are read together: each `most` elements from first to
    last, with no `gap` elements unwanted between two. A run alone is not held up in a buffer."""
    window: list[Run] = []
    for run in _short(wanted, most):
        if window:
            first, end = window[0][1], window[-1][1] + window[-1][2]
            if run[1] - end > gap or run[1] + run[2] - first > most:
                yield window
                window = []
        window.append(run)
    if window:
        yield window


def _short(wanted: Iterable[Run], most: int) -> Iterator[Run]:
    for into, start, count in wanted:
        for done in range(0, count, most):
            yield into + done, start + done, min(most, count - done)
