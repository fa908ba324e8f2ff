"""Going on where the newest whole checkpoint was taken."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest, read_manifest
from orchestrator.checkpoints.names import StepFolder, committed_folders, eligible
from orchestrator.checkpoints.tensor_file import is_unreadable, mismatches
from orchestrator.checkpoints.trust import around, refuse_untrusted
from orchestrator.runs.process import host_name
from orchestrator.training.agreement import together
from orchestrator.training.checkpoint.files import Reader
from orchestrator.training.checkpoint.load import load
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.checkpoint.randomness import set_random_state
from orchestrator.training.engines.base import Engine
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.layout import AXES, layout_of
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank

PAUSES = (5.0, 15.0, 40.0)
"""Seconds between two tries to read a file."""
T = TypeVar("T")


class Resumed(NamedTuple):
    progress: Progress
    folder: StepFolder
    """Which was loaded."""
    damaged: list[StepFolder]
    """Newer ones that were passed over."""


def resume(
    engine: Engine, root: Path, plan: TrainingPlan, rank: Rank, warn: Callable[[str], None]
) -> Resumed | None:
    """Load the newest checkpoint under `root` that is whole and of this history; None where there
    is none.

    Every file is hashed before anything is loaded, the files shared out among the ranks. One that
    is damaged is named through `warn` (rank 0's), and the checkpoint before it is taken.
    All ranks call it together. Raises TrainingFailed where it is one of another model, where a
    file cannot be read and may be whole, and where there are checkpoints and all are damaged: to
    begin anew would undo them all, step by step. Raises UntrustedCheckpoint where others could
    have written it.
    """
    damaged: list[StepFolder] = []
    for folder in _candidates(root, plan, rank):
        manifest, problems = _looked_at(folder, plan, rank)
        if manifest is not None and not problems:
            return Resumed(_loaded(engine, folder, manifest, plan, rank), folder, damaged)
        damaged.append(folder)
        if rank.is_main:
            for problem in problems:
                warn(f"the checkpoint of step {folder.step} is damaged, so not used: {problem}")
    if damaged:
        raise TrainingFailed(
            f"all checkpoints in {root} are damaged, and training does not begin anew by itself",
            hint="`ptx resume RUN --from 0` begins anew; `ptx checkpoints verify RUN` names files",
        )
    return None


def newest_state(root: Path, plan: TrainingPlan, rank: Rank) -> Mapping[str, Any] | None:
    """What the newest checkpoint says of itself, its files not looked into; the same on all ranks,
    which call it together."""
    found = None
    for folder in committed_of(root, plan)[::-1] if rank.is_main else ():
        with suppress(DamagedCheckpoint):
            found = read_manifest(folder.path).state
            break
    return _said_by_main(found)


def best_so_far(
    root: Path,
    plan: TrainingPlan,
    rank: Rank,
    score: Callable[[Mapping[str, float]], float | None],
    since: StepFolder,
) -> tuple[float, int] | None:
    """Score and step of the best checkpoint up to `since`, from which training goes on: what lies
    beyond was passed over as damaged. The same on all ranks, which call it together.

    Raises TrainingFailed where one cannot be read: it may be the best, and would be pruned.
    """
    scores = []
    there = [folder for folder in committed_of(root, plan) if folder <= since]
    with together(rank):
        for folder in there if rank.is_main else ():
            with suppress(DamagedCheckpoint):
                value = score(_manifest_of(folder).metrics)
                scores += [] if value is None else [(value, folder.step)]
    return _said_by_main(max(scores, default=None))


def committed_of(root: Path, plan: TrainingPlan) -> list[StepFolder]:
    """Those that the plan's start may go on from, oldest first, as this node sees them."""
    return eligible(committed_folders(root), plan.history)


def _candidates(root: Path, plan: TrainingPlan, rank: Rank) -> list[StepFolder]:
    """Newest first, as rank 0 sees them: another node's view may lag."""
    return _said_by_main(committed_of(root, plan)[::-1] if rank.is_main else [])


def _looked_at(
    folder: StepFolder, plan: TrainingPlan, rank: Rank
) -> tuple[Manifest | None, list[str]]:
    """The manifest, read once for all, and what is wrong with the files."""
    said: Manifest | str = ""
    with together(rank):
        if rank.is_main:
            try:
                said = _manifest_of(folder)
            except DamagedCheckpoint as error:
                said = error.message
    said = _said_by_main(said)
    if isinstance(said, str):
        return None, [said]
    mine = said.files[rank.rank :: rank.world_size]
    with together(rank):
        paths = [folder.path / entry.name for entry in mine]
        if rank.is_main:
            paths = [*around(folder.path), *paths]
        refuse_untrusted(paths, group_shared=plan.group_shared)
    with together(rank):
        found = mismatches(folder.path, mine, pauses=PAUSES)
        for problem in found:
            if problem.unreadable:
                raise _unreadable(problem.sentence)
    everyone: list[list[str]] = [[] for _ in range(rank.world_size)]
    dist.all_gather_object(everyone, [problem.sentence for problem in found])
    return said, [sentence for some in everyone for sentence in some]


def _manifest_of(folder: StepFolder) -> Manifest:
    """Raises DamagedCheckpoint, and TrainingFailed where it may be whole."""
    try:
        return read_manifest(folder.path)
    except DamagedCheckpoint as error:
        if is_unreadable(error):
            raise _unreadable(error.message) from error
        raise


def _unreadable(sentence: str) -> TrainingFailed:
    return TrainingFailed(
        f"{sentence} on {host_name()}; it may be whole, so training does not go on without it",
        hint="look at that node's file system; `ptx resume RUN --from STEP` takes an earlier one",
    )


def _loaded(
    engine: Engine, folder: StepFolder, manifest: Manifest, plan: TrainingPlan, rank: Rank
) -> Progress:
    progress = Progress.from_json(manifest.state)
    reader = Reader(folder.path, manifest, near=rank.rank / rank.world_size)
    with closing(reader):
        load(engine, reader, progress.engine, rank)
        _restore_random(reader, manifest, plan, rank, progress.step)
    return progress


def _restore_random(
    reader: Reader, manifest: Manifest, plan: TrainingPlan, rank: Rank, step: int
) -> None:
    """As it was where this rank has the place of the one that saved; else something new, for what
    it drew from the start on has been used."""
    layout = layout_of(plan, rank.rank)
    now = dict(zip(AXES, layout.sizes, strict=True))
    same_model = all(manifest.layout.get(axis) == now[axis] for axis in ("pipeline", "tensor"))
    if manifest.world_size == rank.world_size and same_model:
        set_random_state(reader.random(rank.rank), rank.device)
    else:
        seed = f"{plan.training.seed}/{step}/{layout.data_rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "little"))


def _said_by_main(mine: T) -> T:
    said = [mine]
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    return said[0]
