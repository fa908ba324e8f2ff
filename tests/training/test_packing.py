"""Documents share samples without waste, and without seeing each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_llama import tiny_llama

from orchestrator.training.batch import IGNORED
from orchestrator.training.language.cache import made_once
from orchestrator.training.language.chat import Piece
from orchestrator.training.language.next_token import NextToken
from orchestrator.training.language.packing import (
    Packing,
    Pieces,
    beginnings,
    cut,
    one_each,
    packed,
    split,
    whole,
    with_targets,
)
from orchestrator.training.language.records import Draft
from orchestrator.training.language.samples import Samples
from orchestrator.training.language.token_store import TokenStore, write_tokens
from orchestrator.training.language.tokenizers import ByteTokenizer

pytestmark = pytest.mark.slow

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def bounds_of(lengths: list[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int64)


def store_of(folder: Path, documents: list[list[tuple[str, bool]]]) -> TokenStore:
    drafts = [Draft(tuple(Piece(text, counts) for text, counts in doc)) for doc in documents]
    return TokenStore(
        made_once(
            folder,
            "store",
            lambda place: write_tokens(place, drafts, ByteTokenizer(), lambda: None),
        )
    )


@given(lengths=LENGTHS, context=st.integers(1, 16))
def test_every_token_but_a_documents_first_is_predicted_once(
    lengths: list[int], context: int
) -> None:
    bounds = bounds_of(lengths)
    packing = packed(cut(whole(bounds), context), context)
    targets: list[int] = []
    for start, length in zip(packing.pieces.starts, packing.pieces.lengths, strict=True):
        targets.extend(range(start + 1, start + length + 1))
    firsts = set(bounds[:-1].tolist())
    assert sorted(targets) == [i for i in range(int(bounds[-1])) if i not in firsts]


@given(lengths=LENGTHS, context=st.integers(1, 40))
def test_samples_are_filled_as_best_fit_decreasing_fills_them(
    lengths: list[int], context: int
) -> None:
    pieces = cut(whole(bounds_of(lengths)), context)
    packing = packed(pieces, context)
    rooms: list[int] = []  # the same algorithm, one piece after another
    for length in sorted(pieces.lengths.tolist(), reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else context) - length)
    sums = [
        int(packing.pieces.lengths[first:last].sum())
        for first, last in zip(packing.bins[:-1], packing.bins[1:], strict=True)
    ]
    assert sorted(context - total for total in sums) == sorted(rooms)
    assert packing.bins[0] == 0 and packing.bins[-1] == len(pieces)


@pytest.mark.parametrize("context", [64, 8192])
def test_a_hundred_thousand_documents_are_packed_nearly_full(context: int) -> None:
    lengths = np.random.default_rng(0).lognormal(5, 1.5, 100_000).astype(np.int64) + 1
    pieces = cut(whole(np.concatenate([[0], np.cumsum(lengths)])), context)
    packing = packed(pieces, context)
    assert pieces.lengths.sum() / (len(packing) * context) > 0.99


@settings(max_examples=30)
@given(count=st.integers(1, 300), share=st.floats(0.01, 0.5))
def test_held_out_documents_are_the_wanted_share_and_no_others(count: int, share: float) -> None:
    train, heldout = split(bounds_of([10] * count), share)
    every = sorted([*train.starts.tolist(), *heldout.starts.tolist()])
    if count == 1 or round(count * share) == 0:
        assert (train.stops[0], heldout.stops[0]) == (heldout.starts[0], 10)
    else:
        assert every == list(range(0, 10 * count, 10))
        assert len(heldout) == round(count * share)


@pytest.mark.parametrize("lengths", [[1000, 10], [10, 1000], [10, 1000, 10]])
def test_of_few_documents_none_is_held_out_whole(lengths: list[int]) -> None:
    train, heldout = split(bounds_of(lengths), 0.05)
    kept, held = (int((part.stops - part.starts).sum()) for part in (train, heldout))
    assert kept + held == sum(lengths)
    assert held == int(0.05 * sum(lengths))
    assert set(train.stops) & set(heldout.starts)
    _, heldout = split(bounds_of(lengths), 0.05, divisible=False)
    assert int(heldout.stops[0] - heldout.starts[0]) in lengths


def test_held_out_documents_come_from_everywhere() -> None:
    _, heldout = split(bounds_of([1] * 1000), 0.1)
    assert np.histogram(heldout.starts, bins=4, range=(0, 1000))[0].min() > 10


def test_unpacked_each_document_is_a_sample_and_what_is_cut_is_counted() -> None:
    pieces, longer = beginnings(whole(bounds_of([5, 1, 30, 9])), 8)
    assert pieces.starts.tolist() == [0, 6, 36]
    assert pieces.lengths.tolist() == [4, 8, 8]
    assert longer == 1
    assert one_each(pieces).bins.tolist() == [0, 1, 2, 3]


def test_a_sample_holds_tokens_targets_positions_and_bounds(tmp_path: Path) -> None:
    store = store_of(tmp_path, [[("ab", False), ("cde", True)], [("xyz", True)], [("1", True)]])
    pieces = with_targets(cut(whole(store.bounds), 8), store)
    samples = Samples(store, packed(pieces, 8), context=8, pad=257)
    batch = samples.take([0])
    a, x, no, pad = ord("a"), ord("x"), IGNORED, 257
    assert batch.inputs["tokens"].tolist() == [[a, a + 1, a + 2, a + 3, x, x + 1, pad, pad]]
    assert batch.targets.tolist() == [[no, a + 2, a + 3, a + 4, x + 1, x + 2, no, no]]
    assert batch.inputs["positions"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1]]
    assert batch.inputs["cu_seqlens"].tolist() == [0, 4, 6, 8]
    assert batch.extras == {"longest": 4}
    assert batch.weight == 5
    assert not samples.uniform


def test_pieces_without_a_target_are_left_out(tmp_path: Path) -> None:
    """The first target of `pqrs` is q; a prompt that fills a whole piece teaches nothing."""
    store = store_of(tmp_path, [[("prompt..", False), ("answer", True)], [("pqrs", False)]])
    pieces = with_targets(cut(whole(store.bounds), 4), store)
    assert pieces.starts.tolist() == [4, 8, 12]


def test_marks_are_read_where_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [("x" * int(n), bool(i % 2)) for i, n in enumerate(rng.integers(1, 20, 200))]
    store = store_of(tmp_path, [runs])
    expected = np.concatenate([np.full(len(text), counts) for text, counts in runs])
    for first, last in rng.integers(0, store.size, (50, 2)):
        if first < last:
            assert np.array_equal(store.counts(first, last), expected[first:last])


def test_full_samples_of_one_document_are_uniform_and_have_no_bounds(tmp_path: Path) -> None:
    store = store_of(tmp_path, [[("x" * 33, True)]])
    samples = Samples(store, packed(cut(whole(store.bounds), 8), 8), context=8, pad=257)
    assert len(samples) == 4
    assert samples.uniform
    assert samples.tokens_per_sample == 8
    assert set(samples.take([3, 0]).inputs) == {"tokens"}


def test_a_plan_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    packing = packed(Pieces(np.arange(0, 50, 5), np.arange(1, 11)), 12)
    packing.save(tmp_path, "train")
    loaded = Packing.load(tmp_path, "train")
    assert np.array_equal(loaded.bins, packing.bins)
    assert np.array_equal(loaded.pieces.starts, packing.pieces.starts)
    assert np.array_equal(loaded.pieces.lengths, packing.pieces.lengths)


def test_training_on_packed_samples_gives_the_loss_of_the_documents_one_by_one(
    tmp_path: Path,
) -> None:
    documents = [[("to be, ", False), ("or not to be", True)], [("that is", True)], [("!?", True)]]
    store = store_of(tmp_path, documents)
    samples = Samples(
        store, packed(with_targets(cut(whole(store.bounds), 20), store), 20), context=20, pad=0
    )
    assert len(samples) == 2
    batch = samples.take([1, 0])
    model = tiny_llama(layers=2)
    loss, _ = NextToken(model)(batch.inputs, batch.targets, batch.extras)
    expected = torch.zeros(())
    for document in documents:
        text = torch.tensor([list("".join(part for part, _ in document).encode())])
        counts = [mark for part, mark in document for _ in part]
        targets = text[0, 1:].where(torch.tensor(counts[1:]), torch.tensor(IGNORED))
        logits = model(input_ids=text[:, :-1]).logits[0]
        expected += F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(loss, expected)
