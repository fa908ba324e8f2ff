"""Going on where the newest whole checkpoint was taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest, read_manifest
from orchestrator.checkpoints.names import StepFolder, committed_folders
from orchestrator.checkpoints.tensor_file import mismatches
from orchestrator.training.checkpoint.files import Reader
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.checkpoint.randomness import set_random_state
from orchestrator.training.engines.base import Engine
from orchestrator.training.process_group import Rank


def resume(
    engine: Engine, root: Path, rank: Rank, warn: Callable[[str], None]
) -> tuple[Progress, StepFolder] | None:
    """Load the newest checkpoint under `root` that is whole; None where there is none.

    Every file is hashed before anything is loaded, the files shared out among the ranks. One that
    is damaged is named through `warn` (rank 0's), and the checkpoint before it is taken.
    All ranks call it together. Raises TrainingFailed where it is one of another model.
    """
    for folder in _candidates(root, rank):
        manifest, problems = _looked_at(folder, rank)
        if manifest is None or problems:
            if rank.is_main:
                for problem in problems:
                    warn(f"checkpoint of step {folder.step} is damaged: {problem}")
            continue
        return _loaded(engine, folder, manifest, rank), folder
    return None


def _candidates(root: Path, rank: Rank) -> list[StepFolder]:
    """Newest first, as rank 0 sees them: another node's view may lag."""
    said: list[list[StepFolder]] = [committed_folders(root)[::-1] if rank.is_main else []]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def _looked_at(folder: StepFolder, rank: Rank) -> tuple[Manifest | None, list[str]]:
    manifest, mine = None, []
    try:
        manifest = read_manifest(folder.path)
        mine = mismatches(folder.path, manifest.files[rank.rank :: rank.world_size])
    except DamagedCheckpoint as error:
        mine = [error.message]
    everyone: list[list[str]] = [[] for _ in range(rank.world_size)]
    dist.all_gather_object(everyone, mine)
    return manifest, list(dict.fromkeys(problem for some in everyone for problem in some))


def _loaded(engine: Engine, folder: StepFolder, manifest: Manifest, rank: Rank) -> Progress:
    reader = Reader(folder.path, manifest)
    try:
        progress = Progress.from_json(manifest.state)
        engine.restore(reader.fill, progress.engine)
        if manifest.world_size == rank.world_size:
            set_random_state(reader.random(rank.rank), rank.device)
    finally:
        reader.close()
    return progress
