"""Whenever the power goes: a checkpoint that counts is on disk, every byte and every name of it.

Each case is made once more without each one of its syncs, of which none may be in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.made_checkpoints import made_checkpoint
from support.power_loss import losses

from orchestrator.checkpoints.commit import begin, commit, remove
from orchestrator.checkpoints.convert import convert
from orchestrator.checkpoints.manifest import FileEntry, Manifest, read_manifest
from orchestrator.checkpoints.names import MANIFEST, StepFolder, step_folder


class Case(NamedTuple):
    act: Callable[[], object]
    mark: Path
    """From when on it counts."""
    files: list[Path]
    stays: bool = True


def first_of_a_run(run: Path) -> Case:
    folder = run / "checkpoints" / "step-00000007.a000"
    files = [folder / f"rank-{rank:05d}.safetensors" for rank in range(2)]
    return Case(lambda: made_checkpoint(run, 7), folder / MANIFEST, files)


def another_of_a_run(run: Path) -> Case:
    made_checkpoint(run, 3)
    return first_of_a_run(run)


def of_real_tensors(run: Path) -> Case:
    import torch

    from orchestrator.checkpoints.regions import Span
    from orchestrator.training.checkpoint.files import Copied, write_rank_file

    folder = step_folder(run / "checkpoints", 7, 0)

    def save() -> None:
        begin(folder)
        parts = [Copied("model/a", (4,), Span(0, 4), torch.arange(4.0))]
        files = [write_rank_file(folder.path, 0, parts, {}, 0o600)]
        commit(folder.path, manifest_of(folder, *files), run / "attempts")

    return Case(save, folder.path / MANIFEST, [folder.path / "rank-00000.safetensors"])


def converted(run: Path) -> Case:
    saved, out = made_checkpoint(run, 7), run / "out"
    manifest = read_manifest(saved)
    return Case(
        lambda: convert(saved, manifest, out), out / MANIFEST, [out / "tensors.safetensors"]
    )


def weights(run: Path) -> Case:
    saved, out = made_checkpoint(run, 7), run / "out"
    manifest = read_manifest(saved)
    act = lambda: convert(saved, manifest, out, weights_only=True)  # noqa: E731
    return Case(act, out / "model.safetensors", [])


def weights_in_shards(run: Path) -> Case:
    saved, out = made_checkpoint(run, 7), run / "out"
    manifest = read_manifest(saved)
    act = lambda: convert(saved, manifest, out, weights_only=True, shard_bytes=104)  # noqa: E731
    files = [out / f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    return Case(act, out / "model.safetensors.index.json", files)


def deleted(run: Path) -> Case:
    saved = made_checkpoint(run, 7)
    files = [saved / entry.name for entry in read_manifest(saved).files]
    return Case(lambda: remove(StepFolder(7, 0, saved)), saved / MANIFEST, files, stays=False)


def manifest_of(folder: StepFolder, *files: FileEntry) -> Manifest:
    return Manifest("r", folder.step, folder.attempt, 1.0, 1, {"name": "ddp"}, {}, files, {})


@pytest.mark.parametrize(
    "make",
    [
        first_of_a_run,
        another_of_a_run,
        pytest.param(of_real_tensors, marks=pytest.mark.slow),
        converted,
        weights,
        weights_in_shards,
        deleted,
    ],
)
def test_what_counts_is_on_disk_and_no_sync_is_in_vain(
    make: Callable[[Path], Case], tmp_path: Path
) -> None:
    def done(name: str, without: int | None = None) -> tuple[list[str], list[str]]:
        root = tmp_path / name
        root.mkdir()
        act, mark, files, stays = make(root)
        return losses(root, act, mark, files, stays=stays, without=without)

    lost, synced = done("all")
    assert lost == []
    assert synced
    for number, name in enumerate(synced):
        lost, _ = done(str(number), without=number)
        assert lost, f"nothing would be lost without the sync of {name}, the number {number}"
