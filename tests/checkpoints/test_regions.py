"""What one division of a tensor has saved, any other can load."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.checkpoints.regions import (
    Box,
    Region,
    Span,
    overlap,
    region_from_json,
    region_of,
    runs,
)

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


@st.composite
def shape_and_regions(draw: Any) -> tuple[tuple[int, ...], Region, Region]:
    shape = draw(SHAPES)
    return shape, _region(draw, shape), _region(draw, shape)


def _region(draw: Any, shape: tuple[int, ...]) -> Region:
    if draw(st.booleans()):
        ends = sorted(draw(st.integers(0, math.prod(shape))) for _ in range(2))
        return Span(*ends)
    bounds = [sorted(draw(st.integers(0, size)) for _ in range(2)) for size in shape]
    return Box(tuple(low for low, _ in bounds), tuple(high - low for low, high in bounds))


def part(whole: np.ndarray, region: Region) -> np.ndarray:
    """The region's elements in its own order, by numpy's indexing."""
    if isinstance(region, Span):
        return whole.ravel()[region.start : region.stop]
    slices = tuple(slice(o, o + n) for o, n in zip(region.offsets, region.lengths, strict=True))
    return whole[slices].ravel()


@given(shape_and_regions())
def test_a_copy_takes_exactly_what_both_have(case: tuple[tuple[int, ...], Region, Region]) -> None:
    shape, wanted, held = case
    whole = np.arange(math.prod(shape)).reshape(shape)
    theirs, mine = part(whole, held), part(whole, wanted)
    copied = np.full_like(mine, -1)
    for into, from_, count in overlap(wanted, held, shape):
        copied[into : into + count] = theirs[from_ : from_ + count]
    both = np.isin(mine, theirs)
    assert np.array_equal(copied[both], mine[both])
    assert (copied[~both] == -1).all()


@given(shape_and_regions())
def test_a_block_that_is_one_run_becomes_a_span(
    case: tuple[tuple[int, ...], Region, Region],
) -> None:
    shape, region, _ = case
    if not isinstance(region, Box) or not region.numel:
        return
    whole = np.arange(math.prod(shape)).reshape(shape)
    found = region_of(shape, region.offsets, region.lengths)
    assert np.array_equal(part(whole, found), part(whole, region))
    elements = part(whole, region)
    if (np.diff(elements) == 1).all():
        assert isinstance(found, Span)


@given(shape_and_regions())
def test_a_region_survives_being_written_down(
    case: tuple[tuple[int, ...], Region, Region],
) -> None:
    _, region, _ = case
    assert region_from_json(region.to_json()) == region


@pytest.mark.parametrize("value", [None, [3, 1], [1], {"offsets": [1], "lengths": [1, 2]}, "0:3"])
def test_what_is_no_region_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no region"):
        region_from_json(value)


def test_columns_are_one_run_a_row() -> None:
    assert list(runs(Box((0, 2), (3, 2)), (3, 4))) == [(2, 0, 2), (6, 2, 2), (10, 4, 2)]
