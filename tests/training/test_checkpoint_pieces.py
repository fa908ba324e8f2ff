"""Each element is written once, whoever holds it, and found again by whoever wants it."""

from __future__ import annotations

import math
import tempfile
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest
from orchestrator.checkpoints.regions import Box, Region, Span, fits, region_of, runs
from orchestrator.training.checkpoint import files
from orchestrator.training.checkpoint.files import Copied, Reader, copied, write_rank_file
from orchestrator.training.checkpoint.finite import spoilt
from orchestrator.training.checkpoint.optimizer_state import counts_of, materialise_state
from orchestrator.training.checkpoint.pieces import (
    MOST_WRITERS,
    Piece,
    is_own,
    neutral_key,
    own_key,
    torch_pieces,
    trained_tensors,
)
from orchestrator.training.checkpoint.reading import search_order, windows
from orchestrator.training.errors import NotSupported, TrainingFailed

SHAPES = st.lists(st.integers(1, 7), min_size=0, max_size=3).map(tuple)
Shape = tuple[int, ...]


def saved(folder: Path, ranks: list[list[Copied]]) -> Manifest:
    entries = [write_rank_file(folder, n, parts, {}, 0o600) for n, parts in enumerate(ranks)]
    return Manifest("r", 1, 0, 0.0, len(ranks), {}, {}, tuple(entries), {})


def rows(shape: Shape, world: int) -> list[Region]:
    """As FSDP cuts: as many rows on each rank as on the first, the last ranks fewer or none."""
    each = -(-shape[0] // world)
    starts = [min(shape[0], rank * each) for rank in range(world + 1)]
    return [
        region_of(shape, (low, *(0 for _ in shape[1:])), (high - low, *shape[1:]))
        for low, high in pairwise(starts)
    ]


def columns(shape: Shape, world: int) -> list[Region]:
    """As tensor parallelism cuts the last dimension."""
    each = -(-shape[-1] // world)
    starts = [min(shape[-1], rank * each) for rank in range(world + 1)]
    return [
        Box((*(0 for _ in shape[:-1]), low), (*shape[:-1], high - low))
        for low, high in pairwise(starts)
    ]


def runs_of_elements(shape: Shape, world: int) -> list[Region]:
    """As ZeRO cuts: anywhere."""
    size = math.prod(shape)
    cuts = sorted(37 * world * number % (size + 1) for number in range(1, world))
    return [Span(low, high) for low, high in zip((0, *cuts), (*cuts, size), strict=True)]


CUTS = (rows, columns, runs_of_elements)


@st.composite
def cut(draw: Any, shape: Shape) -> list[Region]:
    world = draw(st.integers(1, 6))
    how = draw(st.sampled_from(CUTS if shape else (runs_of_elements,)))
    return how(shape, world)  # type: ignore[no-any-return]


def part(whole: torch.Tensor, region: Region) -> torch.Tensor:
    flat = whole.reshape(-1)
    places = [flat[start : start + count] for start, _, count in runs(region, tuple(whole.shape))]
    return torch.cat([flat[:0], *places])


@given(st.data(), SHAPES, st.sampled_from((torch.float32, torch.bfloat16, torch.int64)))
@settings(max_examples=60, deadline=None)
def test_what_one_division_saved_any_other_loads(
    data: st.DataObject, shape: Shape, dtype: torch.dtype
) -> None:
    whole = torch.arange(math.prod(shape)).reshape(shape)
    held, wanted = data.draw(cut(shape)), data.draw(cut(shape))
    with tempfile.TemporaryDirectory() as name:
        ranks = [[Copied("model/w", shape, r, part(whole, r))] for r in held if r.numel]
        manifest = saved(Path(name), ranks)
        near = data.draw(st.floats(0, 1))
        with closing(Reader(Path(name), manifest, near=near)) as reader:
            for region in wanted:
                target = torch.full((region.numel,), -1, dtype=dtype)
                reader.fill(Piece("model/w", shape, region, target))
                assert torch.equal(target, part(whole, region).to(dtype))


@given(st.integers(0, 1 << 18), st.integers(1, 40), st.text("ab", max_size=4))
def test_copies_write_each_element_once(count: int, copies: int, name: str) -> None:
    tensor, written, writers = torch.empty(1).expand(count), 0, 0
    for copy in range(copies + 3):  # some whose like is written by others
        start, stop = Piece(name, (count,), Span(0, count), tensor, copy, copies).share()
        if start < stop:
            assert start == written  # one behind the other, in the order of the copies
            written, writers = stop, writers + 1
    assert written == count
    assert writers <= MOST_WRITERS


def test_writers_are_on_different_nodes() -> None:
    tensor = torch.empty(1).expand(1 << 20)
    ranks = [Piece("w", (1 << 20,), Span(0, 1 << 20), tensor, copy, 64) for copy in range(64)]
    nodes = {number // 8 for number, piece in enumerate(ranks) if piece.share()[1]}
    assert len(nodes) == MOST_WRITERS


def test_columns_of_many_copies_are_written_once() -> None:
    tensor = torch.empty(1 << 9, 1 << 9)
    box = Box((0, 0), (1 << 9, 1 << 9))
    shares = [Piece("w", (1 << 9, 1 << 10), box, tensor, c, 5).share() for c in range(5)]
    assert sorted(shares) == [(0, 0)] * 4 + [(0, 1 << 18)]


@given(st.integers(1, 200), st.floats(0, 1))
def test_every_file_is_looked_into_once(count: int, near: float) -> None:
    assert sorted(search_order(count, near)) == list(range(count))


def test_of_thousands_of_files_the_likely_ones_come_first() -> None:
    ranks = 8192
    for rank in (0, 3, 5000, 8191):
        order = search_order(ranks, rank / ranks)
        assert order[0] == rank  # cut over the same ranks
        writers = {number * ranks // MOST_WRITERS for number in range(MOST_WRITERS)}
        assert writers <= set(order[:20])  # all hold everything
        of_a_node = {number + rank % 8 for number in writers}
        assert of_a_node <= set(order[:140])  # cut over the ranks of a node of 8
    half = search_order(ranks // 2, 5000 / ranks)
    assert half[0] == 2500  # as many ranks again read


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), max_size=9))
def test_windows_read_every_run_within_their_size(gaps: list[tuple[int, int]]) -> None:
    wanted, into, position = [], 0, 0
    for gap, count in gaps:
        position += gap
        wanted.append((into, position, count))
        into, position = into + count, position + count
    found = list(windows(wanted, most=12, gap=3))
    copied_ = [(i + n, s + n) for window in found for i, s, c in window for n in range(c)]
    assert copied_ == [(i + n, s + n) for i, s, c in wanted for n in range(c)]
    for window in found:
        assert window[-1][1] + window[-1][2] - window[0][1] <= 12


def test_large_and_scattered_reads_are_those_of_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.randn(40, 30)
    manifest = saved(tmp_path, [[Copied("model/w", (40, 30), Span(0, 1200), whole.flatten())]])
    monkeypatch.setattr(files, "_WINDOW", 40)
    monkeypatch.setattr(files, "_GAP", 8)
    with closing(Reader(tmp_path, manifest)) as reader:
        target = torch.empty(40, 7)
        reader.fill(Piece("model/w", (40, 30), Box((0, 3), (40, 7)), target))
        assert torch.equal(target, whole[:, 3:10])
        full = torch.empty(40, 30, dtype=torch.float64)
        reader.fill(Piece("model/w", (40, 30), Span(0, 1200), full))
        assert torch.equal(full, whole.double())


def test_more_files_than_may_be_open_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_OPEN_FILES", 2)
    whole = torch.randn(6, 2)
    regions = rows((6, 2), 6)
    manifest = saved(tmp_path, [[Copied("model/w", (6, 2), r, part(whole, r))] for r in regions])
    with closing(Reader(tmp_path, manifest)) as reader:
        for _ in range(2):
            target = torch.empty(6, 2)
            reader.fill(Piece("model/w", (6, 2), Span(0, 12), target))
            assert torch.equal(target, whole)
            assert len(reader._open) == 2


@pytest.mark.parametrize(
    "held", [[Span(0, 3), Span(4, 8)], [Span(0, 5), Span(4, 7)], [Span(0, 5), Span(4, 8)]]
)
def test_holes_and_doubles_are_never_loaded(tmp_path: Path, held: list[Span]) -> None:
    whole = torch.randn(8)
    manifest = saved(tmp_path, [[Copied("model/w", (8,), r, part(whole, r))] for r in held])
    target = torch.zeros(8)
    with closing(Reader(tmp_path, manifest)) as reader, pytest.raises(DamagedCheckpoint, match="w"):
        reader.fill(Piece("model/w", (8,), Span(0, 8), target))
    assert not target.any()


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("model/v", (4,), "has no v: it is a checkpoint of another model"),
        ("model/w", (2, 2), r"w has the shape \[2, 2\] here and \[4\] in "),
        ("exp_avg_sq/w", (4,), "has no exp_avg_sq of w, but momentum_buffer: another optimizer"),
        ("momentum_buffer/v", (4,), "has no momentum_buffer of v: it is a checkpoint of another"),
    ],
)
def test_another_model_is_refused_by_name(
    tmp_path: Path, key: str, shape: Shape, said: str
) -> None:
    names = ("model/w", "momentum_buffer/w")
    parts = [Copied(name, (4,), Span(0, 4), torch.ones(4)) for name in names]
    manifest = saved(tmp_path, [parts])
    with closing(Reader(tmp_path, manifest)) as reader, pytest.raises(TrainingFailed, match=said):
        reader.fill(Piece(key, shape, Span(0, 4), torch.empty(4)))


def test_an_index_that_is_not_the_files_own_is_refused(tmp_path: Path) -> None:
    for region, shape in ((Span(2, 6), (5,)), (Span(0, 3), (4,)), (Box((0,), (4,)), (2, 2))):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        manifest = saved(folder, [[Copied("model/w", shape, region, torch.ones(4))]])
        with (
            closing(Reader(folder, manifest)) as reader,
            pytest.raises(DamagedCheckpoint, match="rank-00000"),
        ):
            reader.fill(Piece("model/w", shape, Span(0, 1), torch.empty(1)))


def test_a_copy_is_not_what_is_trained_on() -> None:
    tensor = torch.zeros(4)
    (found,) = copied([Piece("model/w", (4,), Span(0, 4), tensor)])
    tensor += 1
    assert not found.tensor.any()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("copies", [1, 2, 3, 12])
def test_an_infinite_parameter_is_noticed_by_whichever_copy_writes_it(
    name: str, copies: int
) -> None:
    """Which need not be the one that writes its optimizer's state, where it has any."""
    model = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(4)))
    made = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name](model.parameters())
    materialise_state(made)

    def found() -> list[str]:
        named = list(trained_tensors(model))
        each = [torch_pieces(named, made, copy=copy, copies=copies) for copy in range(copies)]
        return [key for pieces in each if (key := spoilt(copied(list(pieces))))]

    for key, buffer in model.named_buffers():
        if key.endswith("running_var"):
            buffer.fill_(math.inf)  # as a mask may be
    assert found() == []
    for key, parameter in model.named_parameters():
        with torch.no_grad():
            parameter[1] = math.inf
            assert found() == [f"model/{key}"]
            parameter[1] = 1.0


def test_a_format_without_a_name_is_refused_before_anything_is_written() -> None:
    tensor = torch.zeros(4, dtype=torch.complex64)
    with pytest.raises(NotSupported, match=r"w, which is torch\.complex64"):
        copied([Piece("model/w", (4,), Span(0, 4), tensor)])


def test_a_ranks_own_key_says_whose_it_is() -> None:
    key = own_key("exp_avg/a.b", 12)
    assert is_own(key)
    assert neutral_key(key) == "exp_avg/a.b"
    assert not is_own("exp_avg/rank/3/w")
    assert neutral_key("exp_avg/w") == "exp_avg/w"


def test_regions_outside_a_tensor_do_not_fit() -> None:
    assert fits(Span(0, 6), (2, 3))
    assert not fits(Span(0, 7), (2, 3))
    assert fits(Box((1, 0), (1, 3)), (2, 3))
    assert not fits(Box((1, 1), (1, 3)), (2, 3))
    assert not fits(Box((1,), (1,)), (2, 3))


@pytest.mark.parametrize(
    "made",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5, fused=True),
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.5),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.5, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.5),
    ],
)
def test_state_made_before_its_time_changes_no_step(made: Any) -> None:
    """Weight decay must not get into the averages, nor the step be counted."""
    start = [torch.randn(3, 2), torch.tensor([0.0, -0.0, 1e-30, -3.0])]
    early, plain = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    first, second = made(early), made(plain)
    early[0].grad = torch.ones(3, 2)  # of a step that has begun
    materialise_state(first)
    assert torch.equal(early[0].grad, torch.ones(3, 2))
    assert early[1].grad is None
    for parameter, before in zip(early, start, strict=True):
        assert torch.equal(parameter.view(torch.int32), before.view(torch.int32))  # -0.0 too
        assert not any(torch.as_tensor(value).any() for value in first.state[parameter].values())
    for step in range(3):
        for mine, theirs in zip(early, plain, strict=True):
            mine.grad = torch.randn(mine.shape)
            theirs.grad = mine.grad.clone()
        if step == 1:
            early[1].grad = plain[1].grad = None
        first.step()
        second.step()
        materialise_state(first)
    assert all(torch.equal(a, b) for a, b in zip(early, plain, strict=True))
    assert list(counts_of(first).values()) == list(counts_of(second).values())


def test_only_what_is_trained_is_named_and_tied_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad = False
    model.register_buffer("table", torch.ones(2), persistent=False)

    def scales(_module: object, state: dict[str, Any], prefix: str, _local: object) -> None:
        state[prefix + "0.weight.absmax"] = torch.ones(1)  # as a quantised base does

    model._register_state_dict_hook(scales)
    names = [name for name, _ in trained_tensors(model)]
    assert names == [
        "0.weight",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
        "2.bias",
    ]
