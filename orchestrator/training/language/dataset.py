"""Training and held-out samples of tokens, from whatever the data is."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.training.agreement import together
from orchestrator.training.batch import Dataset
from orchestrator.training.language.cache import cache_root, facts_of
from orchestrator.training.language.corpus import fingerprint, load_corpus
from orchestrator.training.language.long_work import done_by_some, gathered
from orchestrator.training.language.packing import Packing
from orchestrator.training.language.preparation import PARTS, Prepared, prepared
from orchestrator.training.language.samples import Samples
from orchestrator.training.language.sources import find_sources
from orchestrator.training.language.text_options import TextOptions, named
from orchestrator.training.language.token_store import TokenStore
from orchestrator.training.language.tokenizers import ByteTokenizer, Tokenizer
from orchestrator.training.language.windows import Windows
from orchestrator.training.process_group import Rank

__all__ = ["TextData", "TextOptions", "load_text"]


@dataclass(frozen=True)
class TextData:
    train: Dataset
    heldout: Dataset
    source: str
    """In words, for the log."""
    packed: bool
    """Whether samples hold several documents: for `attention_for`."""


def load_text(
    options: TextOptions, tokenizer: Tokenizer, rank: Rank, *, step_samples: int = 1
) -> TextData:
    """The samples of `options`; all ranks call it together, in the process group.

    Documents are tokenised once and kept in the cache folder: by rank 0 if the other nodes see
    its folder, else by one rank of each node. `step_samples` is the plan's global batch.

    Raises UserError on all ranks, naming the one at fault, its host, and file and line, for data
    that cannot be read, holds nothing to learn, or fills no step.
    """
    with together(rank):
        found = _stream(options) if _is_stream(options, tokenizer) else None
    _check_same_stream(found, rank)
    if found is None:
        root = cache_root(options.cache, os.environ)
        builds = _builds(root, rank)
        made = done_by_some(
            (lambda go_on: prepared(options, tokenizer, root, go_on)) if builds else None, rank
        )
        mine = _same_everywhere(gathered(made, rank), rank)
        with together(rank):
            found = _opened(options, tokenizer, root, mine)
    if len(found.train) < step_samples:
        raise UserError(
            f"{found.source} makes {len(found.train):,} samples of {options.context:,} tokens, "
            f"and one step takes {step_samples:,} over all {rank.world_size} ranks",
            hint="give more data, a smaller context or micro_batch, or fewer ranks",
        )
    return found


def _is_stream(options: TextOptions, tokenizer: Tokenizer) -> bool:
    """Whether the data is plain text that is trained on byte by byte, in windows."""
    plain = isinstance(tokenizer, ByteTokenizer) and options.packed is None
    if not plain or options.heldout is not None or options.format not in (None, "text"):
        return False
    if options.data is None:
        return True
    return isinstance(options.data, str) and all(
        source.format == "text" and not source.name.endswith(".gz")
        for source in find_sources(options.data, format=options.format)
    )


def _stream(options: TextOptions) -> TextData:
    path, files = None, None
    if isinstance(options.data, str):
        path = options.data
        files = [Path(source.name) for source in find_sources(path, format=options.format)]
    corpus = load_corpus(path, files=files, heldout_share=options.heldout_share)
    whole = named(options.data)
    train = Windows(corpus.train, options.context, name=f"{whole}, without what is held out,")
    heldout = Windows(corpus.heldout, options.context, name=f"what is held out of {whole}")
    return TextData(train, heldout, corpus.source, packed=False)


def _check_same_stream(found: TextData | None, rank: Rank) -> None:
    """Raise UserError on all ranks where one reads another text, or no stream at all: it would
    train on other samples, and where their number differs, end at another step."""
    samples = () if found is None else (found.train, found.heldout)
    everyone = gathered([fingerprint(s.text) for s in samples if isinstance(s, Windows)], rank)
    for number, other in enumerate(everyone):
        if other != everyone[0]:
            raise UserError(
                f"rank {number} has read other data than rank 0 under the same name",
                hint="copy the same files to every node, or put them where all nodes see them",
            )


def _builds(root: Path, rank: Rank) -> bool:
    """Whether this rank tokenises: rank 0 does, and local rank 0 of nodes with another folder.

    They find out by a file: a thousand nodes that all tokenised into one shared folder would
    write a thousand times what is kept.
    """
    with together(rank):
        name = _probe(root) if rank.is_main else ""
    probe = root / gathered(name, rank)[0]
    sees = probe.exists()
    gathered(sees, rank)  # all have looked
    if rank.is_main:
        probe.unlink(missing_ok=True)
    return rank.is_main or (rank.local_rank == 0 and not sees)


def _probe(root: Path) -> str:
    probe = root / f".probe.{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise UserError(
            f"cannot keep tokens in {root}: {error.strerror}",
            hint="give a folder that can be written, with the data's `cache` or PTX_CACHE",
        ) from error
    return probe.name


def _same_everywhere(made: list[Prepared | None], rank: Rank) -> Prepared:
    """What this rank's node is to open. Raises UserError where nodes have read other data."""
    first = made[0]
    for number, other in enumerate(made):
        if first is not None and other is not None and other.content != first.content:
            raise UserError(
                f"rank {number} has read other data than rank 0 under the same name",
                hint="copy the same files to every node, or put them where all nodes see them",
            )
    mine = made[rank.rank - rank.local_rank] or first
    if mine is None:
        raise RuntimeError("rank 0 has tokenised nothing")
    return mine


def _opened(options: TextOptions, tokenizer: Tokenizer, root: Path, made: Prepared) -> TextData:
    try:
        train, heldout = TokenStore(root / made.train), TokenStore(root / made.heldout)
        plans = [Packing.load(root / made.plan, name) for name in PARTS]
        longer = facts_of(root / made.plan)["cut"]["train"]
    except OSError as error:
        raise UserError(
            f"cannot read the tokens {error.filename}: {error.strerror}",
            hint="the cache folder must be the same one on all ranks of a node",
        ) from error
    samples = [
        Samples(store, plan, context=options.context, pad=tokenizer.pad)
        for store, plan in zip((train, heldout), plans, strict=True)
    ]
    words = [f"{train.documents:,} documents of {train.size:,} tokens", named(options.data)]
    if train.skipped:
        words.append(f"{train.skipped:,} records skipped, with nothing to learn")
    if longer:
        words.append(f"{longer:,} documents cut at {options.context:,} tokens")
    return TextData(samples[0], samples[1], ", ".join(words), options.packed is not False)
