"""Data made ready in the cache: its tokens, and the plan of the samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.training.language.cache import key_of, made_once
from orchestrator.training.language.long_work import GoOn
from orchestrator.training.language.packing import (
    Packing,
    Spans,
    beginnings,
    cut,
    one_each,
    packed,
    split,
    whole,
    with_targets,
)
from orchestrator.training.language.records import Draft, Reader
from orchestrator.training.language.sources import Source, find_sources
from orchestrator.training.language.text_options import Data, TextOptions, named
from orchestrator.training.language.token_store import TokenStore, write_tokens
from orchestrator.training.language.tokenizers import Tokenizer

PARTS = ("train", "heldout")


@dataclass(frozen=True)
class Prepared:
    """Names of the folders in the cache that one builder has made or found."""

    train: str
    heldout: str
    plan: str
    content: str
    """A digest of all tokens."""


def prepared(options: TextOptions, tokenizer: Tokenizer, root: Path, go_on: GoOn) -> Prepared:
    """Tokenise and plan in the cache `root` what is not there yet.

    Raises UserError, with file and line, for data that cannot be read or holds nothing to learn.
    """
    train = _tokens(options.data, options, tokenizer, root, go_on)
    heldout = train
    if options.heldout is not None:
        heldout = _tokens(options.heldout, options, tokenizer, root, go_on)
    stores = TokenStore(train), TokenStore(heldout)
    content = key_of([store.content for store in stores])
    share = options.heldout_share if options.heldout is None else None
    packs = options.packed is not False
    plan = made_once(
        root,
        key_of(["plan 2", content, options.context, packs, share]),
        lambda folder: _plan(folder, options, *stores),
    )
    return Prepared(train.name, heldout.name, plan.name, content)


def _tokens(
    data: Data, options: TextOptions, tokenizer: Tokenizer, root: Path, go_on: GoOn
) -> Path:
    sources = find_sources(
        data,
        format=options.format,
        split=options.split,
        subset=options.subset,
        bad_utf8=options.bad_utf8,
    )
    reader = Reader(tokenizer, options.columns)

    def make(folder: Path) -> dict[str, Any]:
        facts = write_tokens(folder, _drafts(sources, reader), tokenizer, go_on)
        if not facts["documents"]:
            raise UserError(
                f"nothing of {named(data)} is left to train on: {facts['skipped']:,} records "
                "hold nothing to learn",
                hint="a record needs text, a completion, or words of the assistant",
            )
        return facts

    try:
        seen = [source.facts() for source in sources]
    except OSError as error:
        raise UserError(f"cannot read the data {error.filename}: {error.strerror}") from error
    return made_once(root, key_of([seen, tokenizer.identity, options.columns]), make)


def _drafts(sources: Sequence[Source], reader: Reader) -> Iterator[Draft | None]:
    for source in sources:
        empty = True
        for draft in source.drafts(reader):
            empty = False
            yield draft
        if empty and source.listed:
            raise UserError(f"the data file {source.name} is empty", hint="take it out, or fill it")


def _plan(folder: Path, options: TextOptions, train: TokenStore, heldout: TokenStore) -> Any:
    """Lay the samples out in `folder`; gives the number of documents that were cut."""
    spans = whole(train.bounds), whole(heldout.bounds)
    if options.heldout is None:
        spans = split(train.bounds, options.heldout_share, divisible=not train.masked)
    longer = {}
    for name, store, documents in zip(PARTS, (train, heldout), spans, strict=True):
        packing, longer[name] = _layout(store, documents, options)
        if len(packing) == 0:
            kept = "to train on" if name == "train" else "to hold out"
            raise UserError(
                f"{named(options.data)} has no document {kept}: {store.documents:,} documents "
                f"hold {store.size:,} tokens",
                hint="give more data, or a larger context if prompts alone fill it",
            )
        packing.save(folder, name)
    return {"cut": longer}


def _layout(store: TokenStore, documents: Spans, options: TextOptions) -> tuple[Packing, int]:
    """The samples, and how many documents lost their end."""
    if options.packed is False:
        pieces, longer = beginnings(documents, options.context)
        return one_each(with_targets(pieces, store)), longer
    pieces = with_targets(cut(documents, options.context), store)
    return packed(pieces, options.context), 0
