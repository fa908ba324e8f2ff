"""A checkpoint into an engine, by all ranks together."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist

from orchestrator.checkpoints.manifest import DamagedCheckpoint
from orchestrator.errors import UserError
from orchestrator.training.agreement import agree, together
from orchestrator.training.checkpoint.files import Reader
from orchestrator.training.checkpoint.pieces import Piece, is_own, words
from orchestrator.training.engines.base import Engine
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.process_group import Rank

_NAMED = 3
"""Tensors in a sentence."""
_MARKS = 1 << 20


def load(engine: Engine, reader: Reader, scalars: Mapping[str, Any], rank: Rank) -> None:
    """Fill an engine with what `reader` has and what was `scalars()` at the save.

    Raises TrainingFailed, the same on all ranks, where the checkpoint is damaged or one of
    another model: where tensors are missing, have other shapes, or are more than are trained.
    """
    with together(rank):
        saved = reader.keys(reader.names[rank.rank :: rank.world_size])
    wanted = [piece.key for piece in engine.pieces() if not is_own(piece.key)]
    agree(_difference(reader, wanted, saved))
    problem: UserError | None = None

    def fill(piece: Piece) -> None:
        # Kept until all ranks are through: there may be collectives between an engine's pieces.
        nonlocal problem
        if problem is not None:
            return
        try:
            reader.fill(piece)
        except UserError as error:
            problem = error
        except OSError as error:
            problem = DamagedCheckpoint(f"{reader.folder} cannot be read: {error}")

    engine.restore(fill, scalars)
    agree(problem)


def _difference(
    reader: Reader, wanted: Collection[str], saved: Collection[str]
) -> TrainingFailed | None:
    """What all ranks together want and have not saved, or the reverse, as this rank sees it.

    Names do not travel, of which there may be thousands on each of thousands of ranks, but marks
    in a table. In the rare case that two names have one mark, `fill` finds what is missing.
    """
    marks = torch.zeros(2, _MARKS, dtype=torch.uint8)
    for row, keys in enumerate((wanted, saved)):
        marks[row, torch.tensor([_mark(key) for key in keys], dtype=torch.long)] = 1
    dist.all_reduce(marks, op=dist.ReduceOp.MAX)
    for key in wanted:
        if not marks[1, _mark(key)]:
            return reader.absent(key)
    extra = sorted(key for key in saved if not marks[0, _mark(key)])
    return _too_many(reader, extra) if extra else None


def _mark(key: str) -> int:
    return zlib.crc32(key.encode()) % _MARKS


def _too_many(reader: Reader, extra: list[str]) -> TrainingFailed:
    named = ", ".join(words(key) for key in extra[:_NAMED])
    more = " and more" if len(extra) > _NAMED else ""
    return TrainingFailed(
        f"{reader.folder} has {named}{more}, which are not trained here: it is a checkpoint of "
        "another model, of another choice of what is trained, or of another optimizer",
        hint="resume with the model and the optimizer that the run began with",
    )
