"""Texts into numbers, with nothing to download or with the tokenizer of a published model."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from orchestrator.errors import UserError
from orchestrator.training.language.pretrained import hub_errors

PAD, START = 0, 1
_SPECIAL = 2
_WORD = re.compile(r"\w+|[^\w\s]+")
_MULTIPLE = 32  # lengths of batches: few different shapes for allocator and compiler
NOTE = "ptx_tokenizer.json"


class Encoder(Protocol):
    vocabulary: int
    """Ids are below it."""
    words: str
    """What it is, for the log."""

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, int64 (texts, length); what else the model wants."""

    def save(self, folder: Path) -> None:
        """Write what is needed to encode in the same way elsewhere."""


def load_encoder(name: str, *, length: int, vocabulary: int) -> Encoder:
    """`words` (hashed into `vocabulary` ids), `bytes`, or a tokenizer by folder or hub name.

    Texts are cut off after `length` tokens. Raises UserError where there is no such tokenizer.
    """
    if name == "words":
        return HashedWords(length=length, vocabulary=vocabulary)
    return Bytes(length=length) if name == "bytes" else Pretrained(name, length=length)


class HashedWords:
    """Each word's or sign's id is a hash of it (Weinberger et al. 2009, "Feature hashing"): there
    is no vocabulary to learn or lose, and rare words may share an id."""

    def __init__(self, *, length: int, vocabulary: int) -> None:
        self.vocabulary, self._length = vocabulary, length
        self.words = f"words hashed into {vocabulary:,} ids"

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        return _padded([self._ids(text) for text in texts], self._length)

    def save(self, folder: Path) -> None:
        _write_note(
            folder, {"tokenizer": "words", "vocabulary": self.vocabulary, "length": self._length}
        )

    def _ids(self, text: str) -> list[int]:
        ids = [START]
        for word in _WORD.finditer(text.lower()):
            if len(ids) == self._length:
                break
            ids.append(_SPECIAL + zlib.crc32(word[0].encode()) % (self.vocabulary - _SPECIAL))
        return ids


class Bytes:
    """The bytes of UTF-8."""

    vocabulary = _SPECIAL + 256
    words = "bytes"

    def __init__(self, *, length: int) -> None:
        self._length = length

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        cut = (text[: self._length].encode()[: self._length - 1] for text in texts)
        return _padded([[START, *(_SPECIAL + byte for byte in raw)] for raw in cut], self._length)

    def save(self, folder: Path) -> None:
        _write_note(folder, {"tokenizer": "bytes", "length": self._length})


class Pretrained:
    """A tokenizer of transformers."""

    def __init__(self, name: str, *, length: int) -> None:
        from transformers import AutoTokenizer

        with hub_errors(f"the tokenizer {name}"):
            self._inner: Any = AutoTokenizer.from_pretrained(name)
        if self._inner.pad_token is None:
            raise UserError(
                f"the tokenizer {name} has no padding token, so texts cannot share a batch",
                hint="give a model that was made to classify texts",
            )
        self.vocabulary, self._length = len(self._inner), length
        self.words = f"tokenizer of {name}"

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        found = self._inner(
            list(texts),
            truncation=True,
            max_length=self._length,
            padding=True,
            pad_to_multiple_of=_MULTIPLE if self._length % _MULTIPLE == 0 else None,
            return_tensors="pt",
        )
        return dict(found)

    def save(self, folder: Path) -> None:
        self._inner.save_pretrained(folder)


def _padded(rows: Sequence[Sequence[int]], limit: int) -> dict[str, torch.Tensor]:
    longest = max(len(row) for row in rows)
    length = min(limit, -(-longest // _MULTIPLE) * _MULTIPLE)
    ids = torch.full((len(rows), length), PAD)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def _write_note(folder: Path, facts: dict[str, str | int]) -> None:
    (folder / NOTE).write_text(json.dumps({"v": 1, **facts}, indent=2) + "\n")
