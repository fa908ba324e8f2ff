"""Whole tensors out of what ranks wrote, whoever they were, one at a time in memory."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.made_checkpoints import made_checkpoint, whole_tensors

from orchestrator.checkpoints.choose import Choice
from orchestrator.checkpoints.commit import remove
from orchestrator.checkpoints.convert import Converted, convert
from orchestrator.checkpoints.listing import Listed
from orchestrator.checkpoints.manifest import DamagedCheckpoint, read_manifest
from orchestrator.checkpoints.names import step_folder
from orchestrator.checkpoints.regions import Box, Span
from orchestrator.checkpoints.tensor_file import mismatches
from orchestrator.checkpoints.verify import DeletedCheckpoint
from orchestrator.checkpoints.whole import Checkpoint
from orchestrator.errors import Conflict, UserError


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[key].dtype == wanted[key].dtype and np.array_equal(found[key], wanted[key])
        for key in wanted
    )


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_however_ranks_had_cut_the_tensors_they_come_out_whole(tmp_path: Path, ranks: int) -> None:
    folder = made_checkpoint(tmp_path, 7, ranks=ranks)
    done = convert(folder, read_manifest(folder), tmp_path / "out")
    assert same(load_file(tmp_path / "out" / "tensors.safetensors"), whole_tensors(7))
    assert done.tensors == len(whole_tensors(7))


def test_the_result_is_a_checkpoint_of_one_rank(tmp_path: Path) -> None:
    folder = made_checkpoint(tmp_path, 7)
    convert(folder, read_manifest(folder), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    before = read_manifest(folder)
    assert (manifest.world_size, set(manifest.layout.values())) == (1, {1})
    assert (manifest.step, manifest.state) == (before.step, before.state)
    assert mismatches(tmp_path / "out", manifest.files) == []
    convert(tmp_path / "out", manifest, tmp_path / "again")
    one, two = (tmp_path / name / "tensors.safetensors" for name in ("out", "again"))
    assert one.read_bytes() == two.read_bytes()


def test_the_weights_alone_have_the_models_own_names_and_an_index_where_they_are_cut(
    tmp_path: Path,
) -> None:
    folder = made_checkpoint(tmp_path, 7)
    convert(folder, read_manifest(folder), tmp_path / "out", weights_only=True)
    wanted = {
        key.removeprefix("model/"): value
        for key, value in whole_tensors(7).items()
        if key.startswith("model/")
    }
    assert same(load_file(tmp_path / "out" / "model.safetensors"), wanted)

    convert(folder, read_manifest(folder), tmp_path / "cut", weights_only=True, shard_bytes=104)
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(wanted)
    assert len(set(index["weight_map"].values())) == 2
    for name, file in index["weight_map"].items():
        assert np.array_equal(load_file(tmp_path / "cut" / file)[name], wanted[name])


def test_memory_is_that_of_the_largest_tensor(tmp_path: Path) -> None:
    big = {f"model/{n}": np.full((64, 4096), n, dtype=np.float32) for n in range(16)}
    halves = [{key: Box((0, rank * 2048), (64, 2048)) for key in big} for rank in range(2)]
    folder = made_checkpoint(tmp_path, 1, tensors=big, regions=halves)
    tracemalloc.start()
    convert(folder, read_manifest(folder), tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = 64 * 4096 * 4
    hashing = 8 << 20  # its buffer
    assert peak < hashing + 3 * largest < 16 * largest
    assert same(load_file(tmp_path / "out" / "tensors.safetensors"), big)


def test_what_a_rank_holds_for_itself_stays_behind(tmp_path: Path) -> None:
    tensors = {"model/a": np.arange(4, dtype=np.float32), "rank/0/model/a": np.ones(4, np.float32)}
    mine = {"model/a": Span(0, 4), "rank/0/model/a": Span(0, 4)}
    folder = made_checkpoint(tmp_path, 1, tensors=tensors, regions=[mine])
    convert(folder, read_manifest(folder), tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "tensors.safetensors")) == {"model/a"}


def test_what_is_converted_does_not_claim_that_ranks_have_tensors_of_their_own(
    tmp_path: Path,
) -> None:
    folder = made_checkpoint(tmp_path, 1)
    manifest = read_manifest(folder)
    engine = {"steps": 1, "local_sgd": {"ranks": 2, "apart": True, "diverged": True}}
    convert(folder, replace(manifest, state={**manifest.state, "engine": engine}), tmp_path / "out")
    assert read_manifest(tmp_path / "out").state == {**manifest.state, "engine": {"steps": 1}}


@pytest.mark.parametrize("second", [Span(2, 4), Span(0, 3), Span(1, 4)])
def test_an_element_that_is_missing_or_there_twice_is_damage(tmp_path: Path, second: Span) -> None:
    tensors = {"model/a": np.arange(4, dtype=np.float32)}
    first = Span(0, 1)
    regions = [{"model/a": first}, {"model/a": second}]
    folder = made_checkpoint(tmp_path, 1, tensors=tensors, regions=regions)
    with Checkpoint(folder, read_manifest(folder)) as checkpoint:
        if second == Span(1, 4):
            assert bytes(checkpoint.read("model/a")) == tensors["model/a"].tobytes()
            return
        with pytest.raises(DamagedCheckpoint, match="each element of model/a once"):
            checkpoint.read("model/a")


def test_a_damaged_byte_never_gets_a_sound_hash(tmp_path: Path) -> None:
    folder = made_checkpoint(tmp_path, 7)
    shard = folder / "rank-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match="rank-00001"):
        convert(folder, read_manifest(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_deleted_while_it_is_converted_leaves_nothing_and_the_newest_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_checkpoint(tmp_path, 7)
    choice, out = Choice(tmp_path / "checkpoints", None, None, False), tmp_path / "out"
    reads, went = Checkpoint.read, []

    def prunes_meanwhile(checkpoint: Checkpoint, key: str) -> memoryview:
        if key == "model/a.weight" and len(went) < 2:  # half of it is written by then
            assert any(out.iterdir())
            folder = step_folder(tmp_path / "checkpoints", 7 + len(went), 0)
            went.append(folder)
            made_checkpoint(tmp_path, folder.step + 1)
            remove(folder)
            checkpoint.__exit__(None, None, None)  # it has not opened this file yet
        return reads(checkpoint, key)

    def act(one: Listed) -> Converted:
        assert one.manifest is not None and not out.exists()
        return convert(one.folder.path, one.manifest, out)

    monkeypatch.setattr(Checkpoint, "read", prunes_meanwhile)
    assert choice.read_by(act).tensors == len(whole_tensors(9))
    assert read_manifest(out).step == 9
    shutil.rmtree(out)
    went.clear()
    made_checkpoint(tmp_path, 7)
    with pytest.raises(DeletedCheckpoint, match="was deleted while it was read"):
        replace(choice, step=7).read_by(act)
    assert not out.exists()


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    folder = made_checkpoint(tmp_path, 7)
    with pytest.raises(Conflict, match="exists already"):
        convert(folder, read_manifest(folder), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        convert(folder, read_manifest(folder), tmp_path / "file" / "out")
