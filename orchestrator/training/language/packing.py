"""Which stretches of tokens share a sample, planned once for a whole data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.training.language.token_store import TokenStore

Ints = npt.NDArray[np.int64]
_AT_ONCE = 1 << 24
"""Tokens whose marks are counted at once."""


@dataclass(frozen=True)
class Spans:
    """Stretches of tokens from `starts` up to `stops`: documents, or parts of them. int64."""

    starts: Ints
    stops: Ints

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class Pieces:
    """Stretches of `lengths` inputs, each predicting its next token, so lengths + 1 tokens."""

    starts: Ints
    lengths: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def chosen(self, which: npt.NDArray[Any]) -> Pieces:
        return Pieces(self.starts[which], self.lengths[which])


@dataclass(frozen=True)
class Packing:
    """Sample i is made of the pieces bins[i] up to bins[i + 1]."""

    pieces: Pieces
    bins: Ints

    def __len__(self) -> int:
        return len(self.bins) - 1

    def save(self, folder: Path, name: str) -> None:
        np.save(folder / f"{name}.starts.npy", self.pieces.starts)
        np.save(folder / f"{name}.lengths.npy", self.pieces.lengths)
        np.save(folder / f"{name}.bins.npy", self.bins)

    @staticmethod
    def load(folder: Path, name: str) -> Packing:
        """Mapped into memory."""
        starts, lengths, bins = (
            np.load(folder / f"{name}.{part}.npy", mmap_mode="r")
            for part in ("starts", "lengths", "bins")
        )
        return Packing(Pieces(starts, lengths), bins)


def split(bounds: Ints, share: float, *, divisible: bool = True) -> tuple[Spans, Spans]:
    """Documents to train on, and `share` of them held out: always the same ones.

    Which ones follows from their numbers through a hash, so that data in order of topic or date
    is not split along it. Where one document would be more than that share, since they are so few,
    the longest is cut, and its end held out; unless they are not `divisible`, as conversations are
    not, and several.
    """
    count = len(bounds) - 1
    held = round(count * share) if divisible else max(1, round(count * share))
    if held == 0 or count == 1:
        longest = int(np.diff(bounds).argmax())
        starts, stops = np.array(bounds[:-1]), np.array(bounds[1:])
        first, last = int(starts[longest]), int(stops[longest])
        stops[longest] = cut = max(first, last - max(2, int((bounds[-1] - bounds[0]) * share)))
        return Spans(starts, stops), _spans([cut], [last])
    chosen = np.argsort(_mixed(np.arange(count, dtype=np.uint64)), kind="stable")[:held]
    is_held = np.zeros(count, dtype=np.bool_)
    is_held[chosen] = True
    starts, stops = bounds[:-1], bounds[1:]
    return Spans(starts[~is_held], stops[~is_held]), Spans(starts[is_held], stops[is_held])


def whole(bounds: Ints) -> Spans:
    """All documents."""
    return Spans(np.asarray(bounds[:-1]), np.asarray(bounds[1:]))


def cut(spans: Spans, context: int) -> Pieces:
    """Pieces of `context` inputs and, from each document's end, a shorter one.

    Neighbours share a token, which one predicts and the other reads: every token of a document
    but its first is a target once.
    """
    inputs = np.maximum(spans.stops - spans.starts - 1, 0)
    counts = -(-inputs // context)
    document = np.repeat(np.arange(len(spans)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets = number * context
    return Pieces(spans.starts[document] + offsets, np.minimum(inputs[document] - offsets, context))


def beginnings(spans: Spans, context: int) -> tuple[Pieces, int]:
    """Each document's first `context` inputs; and how many documents were longer than that."""
    inputs = spans.stops - spans.starts - 1
    some = inputs > 0
    pieces = Pieces(spans.starts[some], np.minimum(inputs[some], context))
    return pieces, int((inputs > context).sum())


def with_targets(pieces: Pieces, store: TokenStore) -> Pieces:
    """Only those with a token that counts: the others would be computed for nothing."""
    if not store.masked or len(pieces) == 0:
        return pieces
    useful = np.concatenate([_any_counts(block, store) for block in _blocks(pieces)])
    return pieces.chosen(useful)


def one_each(pieces: Pieces) -> Packing:
    """Every piece is a sample."""
    return Packing(pieces, np.arange(len(pieces) + 1, dtype=np.int64))


def packed(pieces: Pieces, capacity: int) -> Packing:
    """Best fit decreasing: each piece, the longest first, into the fullest sample that has room
    for it, of `capacity` inputs each (Ding et al. 2024, "Fewer Truncations Improve Language
    Modeling").

    Pieces of one length are placed together and samples with the same room are alike, so the
    work grows with the number of different lengths and not with the number of pieces.
    """
    order = np.lexsort((pieces.starts, -pieces.lengths))
    lengths = pieces.lengths[order]
    sample = np.empty(len(order), dtype=np.int64)
    rooms = _Rooms(capacity)
    first = 0
    while first < len(order):
        length = int(lengths[first])
        last = int(np.searchsorted(-lengths, -length, side="right"))
        for bins in rooms.place(length, last - first):
            sample[first : first + len(bins)] = bins
            first += len(bins)
    # By sample, and in a sample by place in the data.
    by_sample = np.lexsort((pieces.starts[order], sample))
    bounds = np.zeros(rooms.samples + 1, dtype=np.int64)
    np.cumsum(np.bincount(sample, minlength=rooms.samples), out=bounds[1:])
    return Packing(pieces.chosen(order[by_sample]), bounds)


class _Rooms:
    """Samples that are not full, by how many inputs still fit."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.samples = 0
        self._open: dict[int, list[Ints]] = {}
        self._rooms = 0  # bit r is set where a sample has room for r: the next one up is found fast

    def place(self, length: int, count: int) -> Iterator[Ints]:
        """Samples for `count` pieces of `length`, one for each piece, in several arrays."""
        while count:
            fitting = self._rooms >> length
            room = length + (fitting & -fitting).bit_length() - 1 if fitting else self.capacity
            each = room // length  # the sample stays the fullest with room until it has none
            wanted = -(-count // each)
            bins = self._take(room, wanted) if fitting else self._new(wanted)
            placed = min(count, each * len(bins))
            full, rest = divmod(placed, each)
            self._add(room - each * length, bins[:full])
            self._add(room - rest * length, bins[full:])
            yield np.repeat(bins, each)[:placed]
            count -= placed

    def _new(self, count: int) -> Ints:
        bins = np.arange(self.samples, self.samples + count, dtype=np.int64)
        self.samples += count
        return bins

    def _take(self, room: int, most: int) -> Ints:
        held = self._open[room]
        bins = held.pop()
        if len(bins) > most:
            held.append(bins[most:])
            bins = bins[:most]
        if not held:
            self._rooms &= ~(1 << room)
        return bins

    def _add(self, room: int, bins: Ints) -> None:
        if room and len(bins):
            self._open.setdefault(room, []).append(bins)
            self._rooms |= 1 << room


def _blocks(pieces: Pieces) -> Iterator[Pieces]:
    """Neighbours that lie within so many tokens that their marks fit into memory."""
    first = 0
    while first < len(pieces):
        reach = int(pieces.starts[first]) + _AT_ONCE
        last = max(first + 1, int(np.searchsorted(pieces.starts, reach)))
        yield Pieces(pieces.starts[first:last], pieces.lengths[first:last])
        first = last


def _any_counts(pieces: Pieces, store: TokenStore) -> npt.NDArray[np.bool_]:
    first = int(pieces.starts[0])
    last = int((pieces.starts + pieces.lengths).max()) + 1
    sums = np.zeros(last - first + 1, dtype=np.int64)
    np.cumsum(store.counts(first, last), out=sums[1:])
    starts = pieces.starts - first
    counted = sums[starts + pieces.lengths + 1] - sums[starts + 1]
    return np.asarray(counted > 0)


def _spans(starts: list[int], stops: list[int]) -> Spans:
    return Spans(np.asarray(starts, dtype=np.int64), np.asarray(stops, dtype=np.int64))


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele et al. 2014): numbers in order to numbers in none."""
    with np.errstate(over="ignore"):
        mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
