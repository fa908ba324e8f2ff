"""Whenever the power goes: what counts is on disk, every byte and every name of it. Checkpoints
first, and whatever else is put in its place by rename.

Each case is made once more without each one of its syncs, of which none may be in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.made_checkpoints import made_checkpoint
from support.power_loss import losses

from orchestrator.checkpoints.commit import begin, commit, remove
from orchestrator.checkpoints.convert import convert
from orchestrator.checkpoints.manifest import FileEntry, Manifest, read_manifest
from orchestrator.checkpoints.names import MANIFEST, StepFolder, step_folder
from orchestrator.render.bundle import Bundle, BundleFile
from orchestrator.runs.bundles import put_bundle
from orchestrator.runs.layout import RunLayout


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


def model(run: Path) -> Case:
    from orchestrator.training.output import replacing

    place = run / "model"

    def save() -> None:
        with replacing(place, group_shared=False) as new:
            (new / "weights").write_text("all of them")
            (new / "tokenizer").mkdir()
            (new / "tokenizer" / "words").write_text("a b")

    return Case(save, place, [place / "weights", place / "tokenizer" / "words"])


def tokens(run: Path) -> Case:
    from orchestrator.training.language.cache import MANIFEST, made_once

    def make(folder: Path) -> dict[str, Any]:
        (folder / "tokens").write_text("1 2 3")
        return {}

    place = run / "key"
    return Case(lambda: made_once(run, "key", make), place, [place / "tokens", place / MANIFEST])


def micro_batch(run: Path) -> Case:
    from orchestrator.spec.training import Training
    from orchestrator.training.memory.known import Known
    from orchestrator.training.memory.record import write_record

    def write() -> None:
        write_record(run / "attempts", Known(), Training(), group_shared=False)

    (run / "attempts").mkdir()
    return Case(write, run / "attempts" / "micro_batch.json", [])


def bundle(run: Path) -> Case:
    layout = RunLayout(run)
    layout.bundle.mkdir()
    files = (BundleFile("launch.sh", b"#!/bin/sh\n", executable=True), BundleFile("x", b"x"))
    made = Bundle("r", run, "local", files, ())
    return Case(
        lambda: put_bundle(layout, made, 0), layout.bundle / "launch.sh", [layout.bundle / "x"]
    )


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
        pytest.param(model, marks=pytest.mark.slow),
        tokens,
        micro_batch,
        bundle,
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
