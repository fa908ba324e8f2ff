"""Tokens on disk: one long row, which of them count, and where documents end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.training.language.cache import facts_of
from orchestrator.training.language.long_work import GoOn
from orchestrator.training.language.records import Draft
from orchestrator.training.language.tokenizers import Ids, Tokenizer

_BATCH_CHARACTERS = 1 << 21
_BATCH_DRAFTS = 1024
_BUFFER_TOKENS = 1 << 20
Bools = npt.NDArray[np.bool_]


def write_tokens(
    folder: Path, drafts: Iterable[Draft | None], tokenizer: Tokenizer, go_on: GoOn
) -> dict[str, Any]:
    """Tokenise `drafts` into files in `folder`, in memory that does not grow with them.

    tokens.bin: uint16, or uint32 where the vocabulary needs it. counts.bin: one bit a token,
    lowest first, whether it may be a target. documents.bin: int64 bounds, from 0. Returns the
    facts for the manifest: `dtype`, `tokens`, `documents`, `skipped` (records with nothing to
    learn), `masked` (whether some token does not count) and `content`, a digest.
    """
    with TokenWriter(folder, tokenizer.vocabulary) as writer:
        for batch in _batches(drafts):
            go_on()
            _write(writer, [draft for draft in batch if draft is not None], tokenizer)
            writer.skipped += sum(draft is None for draft in batch)
    return writer.facts()


def _batches(drafts: Iterable[Draft | None]) -> Iterator[list[Draft | None]]:
    """Large enough to keep a fast tokenizer's threads busy."""
    batch: list[Draft | None] = []
    characters = 0
    for draft in drafts:
        batch.append(draft)
        characters += sum(len(piece.content) for piece in draft.pieces) if draft else 0
        if characters >= _BATCH_CHARACTERS or len(batch) == _BATCH_DRAFTS:
            yield batch
            batch, characters = [], 0
    yield batch


def _write(writer: TokenWriter, drafts: list[Draft], tokenizer: Tokenizer) -> None:
    pieces = [piece for draft in drafts for piece in draft.pieces]
    texts = [piece.content for piece in pieces if isinstance(piece.content, str)]
    encoded = iter(tokenizer.encode(texts))
    for draft in drafts:
        for piece in draft.pieces:
            content = piece.content
            ids = next(encoded) if isinstance(content, str) else np.asarray(content, dtype=np.int64)
            writer.add(ids, counts=piece.counts)
        if draft.closes:
            writer.close_document()


class TokenWriter:
    """Appends tokens to the files of a store."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self._dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
        self._tokens, self._counts, self._documents = (
            (folder / f"{name}.bin").open("wb") for name in ("tokens", "counts", "documents")
        )
        self._digest = hashlib.blake2b(digest_size=16)
        self._held: list[Ids] = []
        self._marks: list[Bools] = []
        self._bits: Bools = np.empty(0, dtype=np.bool_)
        self._ends: list[int] = [0]
        self._waiting = 0
        self._masked = False
        self.tokens = 0
        self.documents = 0
        self.skipped = 0

    def add(self, ids: Ids, *, counts: bool) -> None:
        if len(ids) == 0:
            return
        self._held.append(ids)
        self._marks.append(np.full(len(ids), counts))
        self._masked |= not counts
        self._waiting += len(ids)
        self.tokens += len(ids)
        if self._waiting >= _BUFFER_TOKENS:
            self._flush()

    def close_document(self) -> None:
        self._ends.append(self.tokens)
        self.documents += 1

    def facts(self) -> dict[str, Any]:
        return {
            "dtype": self._dtype.name,
            "tokens": self.tokens,
            "documents": self.documents,
            "skipped": self.skipped,
            "masked": self._masked,
            "content": self._digest.hexdigest(),
        }

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
            self._put(self._counts, np.packbits(self._bits, bitorder="little"))
        for file in (self._tokens, self._counts, self._documents):
            file.close()

    def _flush(self) -> None:
        if self._held:
            self._put(self._tokens, np.concatenate(self._held).astype(self._dtype))
            marks = np.concatenate([self._bits, *self._marks])
            whole = len(marks) // 8 * 8
            self._put(self._counts, np.packbits(marks[:whole], bitorder="little"))
            self._bits = marks[whole:]
        self._put(self._documents, np.asarray(self._ends, dtype=np.int64))
        self._held, self._marks, self._ends, self._waiting = [], [], [], 0

    def _put(self, file: Any, values: npt.NDArray[Any]) -> None:
        file.write(values.data)
        self._digest.update(values.data)


class TokenStore:
    """What `write_tokens` has written, mapped into memory: ranks of a node share its pages."""

    def __init__(self, folder: Path) -> None:
        facts = facts_of(folder)
        self.size = int(facts["tokens"])
        self.masked = bool(facts["masked"])
        self.skipped = int(facts["skipped"])
        self.content = str(facts["content"])
        self._tokens = _mapped(folder / "tokens.bin", np.dtype(facts["dtype"]))
        self._counts = _mapped(folder / "counts.bin", np.dtype(np.uint8))
        self.bounds = _mapped(folder / "documents.bin", np.dtype(np.int64))
        """int64 (documents + 1,)."""

    @property
    def documents(self) -> int:
        return len(self.bounds) - 1

    def tokens(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """Those from `first` up to `last`, copied."""
        return self._tokens[first:last].astype(np.int64)

    def counts(self, first: int, last: int) -> Bools:
        """Whether each of these may be a target."""
        if not self.masked:
            return np.ones(last - first, dtype=np.bool_)
        bits = np.unpackbits(self._counts[first // 8 : -(-last // 8)], bitorder="little")
        return bits[first % 8 :][: last - first].astype(np.bool_)


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if path.stat().st_size == 0:  # mmap refuses empty files
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
