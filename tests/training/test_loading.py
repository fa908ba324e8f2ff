"""Rank 0's weights reach all ranks, each of which keeps its part, and they lie as planned."""

from __future__ import annotations

from typing import Any

import pytest
from support.oracle import engines

pytestmark = pytest.mark.slow

FROM_RANK_0 = ("full", "offload", "mixed", "tensor")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("loading")
    return engines(folder, "meta", "state", "mismatches", world_size=2)


@pytest.mark.parametrize("how", FROM_RANK_0)
def test_other_ranks_build_nothing_real_and_get_rank_0s_weights(
    ranks: list[dict[str, Any]], how: str
) -> None:
    first, second = (seen["meta"][how] for seen in ranks)
    assert (first["real"], first["meta"]) == (True, False)
    assert (second["real"], second["meta"]) == (False, True)
    for seen in (first, second):
        assert seen["tables"], "a buffer that no state dict holds is not rank 0's"
        assert seen["share"] == pytest.approx(0.5, abs=0.01)
        assert seen["cut"], "evaluation has left parameters whole"
    assert first["names"] and first["equal"]


@pytest.mark.parametrize("how", FROM_RANK_0)
def test_tied_embeddings_stay_one_parameter(ranks: list[dict[str, Any]], how: str) -> None:
    assert all(seen["meta"][how]["one"] for seen in ranks)
    assert ranks[0]["meta"][how]["tied"]


def test_dropout_differs_between_samples_and_agrees_within_a_layer(
    ranks: list[dict[str, Any]],
) -> None:
    """Though rank 0 alone has drawn random numbers for weights."""
    first, second = (seen["meta"] for seen in ranks)
    assert first["full"]["random"] != second["full"]["random"]
    assert first["tensor"]["random"] == second["tensor"]["random"]


def test_under_ddp_every_rank_builds_real_weights(ranks: list[dict[str, Any]]) -> None:
    assert [seen["meta"]["ddp 1"] for seen in ranks] == [[True, False], [True, False]]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_state_is_a_copy_of_what_is_wanted_on_rank_0(
    ranks: list[dict[str, Any]], strategy: str
) -> None:
    assert [seen["state"][strategy]["names"] for seen in ranks] == [["blocks"], []]
    assert ranks[0]["state"][strategy]["kept"]


def test_what_really_lies_where_is_said(ranks: list[dict[str, Any]]) -> None:
    for seen in ranks:
        assert (
            seen["mismatches"]["describe"] == "fsdp full: 3 groups cut over 2 ranks, copied 1 time"
        )
        assert seen["mismatches"]["ddp"] == "ddp over 2 ranks"
        assert seen["meta"]["offload"]["describe"].endswith(", in host memory")
        assert (
            seen["meta"]["tensor"]["describe"]
            == "ddp: 3 groups uncut, copied 1 time, each layer over 2 ranks"
        )


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("frozen", "no parameter of the model is trainable"),
        ("scalar", "temperature is a single number"),
        ("different", "the ranks have built different models"),
        ("wide", "planned on 4 ranks along shard and lies on 2"),
        ("copied", "planned on 2 ranks along replicate and lies on 1"),
        ("plain", "planned to be cut over the ranks, and each holds all of it"),
        ("backend", "planned to travel through nccl"),
    ],
)
def test_every_rank_refuses_what_is_not_as_planned(
    ranks: list[dict[str, Any]], what: str, sentence: str
) -> None:
    assert all(sentence in seen["mismatches"][what] for seen in ranks)


def test_what_is_as_planned_is_accepted(ranks: list[dict[str, Any]]) -> None:
    assert [seen["mismatches"]["right"] for seen in ranks] == [None, None]
