"""Which part of a tensor a rank holds, in terms that know no strategy.

DDP holds all of it, FSDP rows, ZeRO any run of elements, tensor parallelism columns. Written down
as regions of the whole tensor, what one strategy has saved another can load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """Elements start <= i < stop of a tensor that is laid out row by row."""

    start: int
    stop: int

    @property
    def numel(self) -> int:
        return self.stop - self.start

    def to_json(self) -> Any:
        return [self.start, self.stop]


@dataclass(frozen=True)
class Box:
    """A block of a tensor: per dimension where it starts and how long it is."""

    offsets: Shape
    lengths: Shape

    @property
    def numel(self) -> int:
        return math.prod(self.lengths)

    def to_json(self) -> Any:
        return {"offsets": list(self.offsets), "lengths": list(self.lengths)}


Region = Span | Box


def region_of(shape: Shape, offsets: Sequence[int], lengths: Sequence[int]) -> Region:
    """The block as a Span where it is one run of elements, else as a Box."""
    inner = [i for i, length in enumerate(lengths) if length != 1]
    first = inner[0] if inner else len(shape)
    whole_behind = all(lengths[i] == shape[i] for i in range(first + 1, len(shape)))
    if not whole_behind:
        return Box(tuple(offsets), tuple(lengths))
    start = sum(o * math.prod(shape[i + 1 :]) for i, o in enumerate(offsets))
    return Span(start, start + math.prod(lengths))


def region_from_json(value: Any) -> Region:
    """Raises ValueError for what no region is."""
    match value:
        case [int(start), int(stop)] if 0 <= start <= stop:
            return Span(start, stop)
        case {"offsets": [*offsets], "lengths": [*lengths]} if len(offsets) == len(lengths):
            if all(isinstance(n, int) and n >= 0 for n in (*offsets, *lengths)):
                return Box(tuple(offsets), tuple(lengths))
    raise ValueError(f"{value!r} is no region of a tensor")


def runs(region: Region, shape: Shape) -> Iterator[tuple[int, int, int]]:
    """The region as runs of elements: (start in the whole tensor, start in the region, length).

    In the region's own order, which is row by row.
    """
    if isinstance(region, Span):
        if region.numel:
            yield region.start, 0, region.numel
        return
    if not region.numel:
        return
    cut = _last_cut(region.lengths, shape)
    behind = math.prod(shape[cut + 1 :])
    strides = [math.prod(shape[i + 1 :]) for i in range(cut)]
    length = region.lengths[cut] * behind
    for row in range(region.numel // length):
        rest, start = row, region.offsets[cut] * behind
        for i in range(cut - 1, -1, -1):
            rest, index = divmod(rest, region.lengths[i])
            start += (region.offsets[i] + index) * strides[i]
        yield start, row * length, length


def _last_cut(lengths: Shape, shape: Shape) -> int:
    """The last dimension that a block has only a part of; behind it rows lie end to end."""
    cut = len(shape) - 1
    while cut and lengths[cut] == shape[cut]:
        cut -= 1
    return cut


def fits(region: Region, shape: Shape) -> bool:
    """Whether there are such elements in a tensor of this shape."""
    if isinstance(region, Span):
        return 0 <= region.start <= region.stop <= math.prod(shape)
    return len(region.offsets) == len(shape) > 0 and all(
        start >= 0 and length >= 0 and start + length <= size
        for start, length, size in zip(region.offsets, region.lengths, shape, strict=True)
    )


def overlap(wanted: Region, held: Region, shape: Shape) -> Iterator[tuple[int, int, int]]:
    """What to copy: (start in `wanted`, start in `held`, length), all in elements."""
    other = list(runs(held, shape))
    position = 0
    for start, into, length in runs(wanted, shape):
        stop = start + length
        while position and other[position - 1][0] + other[position - 1][2] > start:
            position -= 1
        while position < len(other) and other[position][0] < stop:
            theirs, from_, count = other[position]
            low, high = max(start, theirs), min(stop, theirs + count)
            if low < high:
                yield into + low - start, from_ + low - theirs, high - low
            position += 1
