"""One norm, however the gradients are spread: that of one process."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.oracle import engines

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("clipping")
    return [seen["clipping"] for seen in engines(folder, "clipping", world_size=4)]


def test_gradients_cut_in_many_ways_are_clipped_as_whole_ones(ranks: list[dict[str, Any]]) -> None:
    for seen in ranks:
        for way in ("plain", "spread"):
            assert seen[way]["norm"] == pytest.approx(seen["expected"]["norm"], rel=1e-6)
            assert seen[way]["sums"] == pytest.approx(seen["expected"]["sums"], rel=1e-5)


def test_small_gradients_stay_what_they_are(ranks: list[dict[str, Any]]) -> None:
    for seen in ranks:
        assert seen["small"]["norm"] == pytest.approx(seen["expected"]["norm"], rel=1e-6)
        assert seen["small"]["sums"] == pytest.approx(seen["unclipped"], rel=1e-6)


def test_pipeline_stages_share_one_norm_and_count_tied_weights_once(
    ranks: list[dict[str, Any]],
) -> None:
    first, second, tied = slice(0, 3), slice(3, 6), slice(6, 7)
    for rank, seen in enumerate(ranks):
        sums = seen["expected"]["sums"]
        own = sums[second if rank % 2 else first] + sums[tied]
        assert seen["stages"]["norm"] == pytest.approx(seen["expected"]["norm"], rel=1e-6)
        assert seen["stages"]["sums"] == pytest.approx(own, rel=1e-5)
        assert seen["nothing"] == 0


def test_the_norm_of_bfloat16_gradients_is_not_rounded_to_8_bits(
    ranks: list[dict[str, Any]],
) -> None:
    assert ranks[0]["low"] == pytest.approx(ranks[0]["low expected"], rel=1e-6)


def test_an_infinite_gradient_has_an_infinite_norm(ranks: list[dict[str, Any]]) -> None:
    assert all(math.isinf(seen["infinite"]) for seen in ranks)
