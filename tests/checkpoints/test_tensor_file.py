"""Tensors on disk: readable by others, hashed while written, and found damaged when they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from orchestrator.checkpoints.manifest import DamagedCheckpoint, FileEntry
from orchestrator.checkpoints.tensor_file import Held, TensorFile, mismatches, write_tensors

ARRAYS = {"a/w": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.array([7], dtype=np.int64)}


def held(array: np.ndarray) -> Held:
    names = {"float32": "F32", "int64": "I64"}
    return Held(names[array.dtype.name], array.shape, memoryview(array.reshape(-1)).cast("B"))


def written(path: Path) -> FileEntry:
    return write_tensors(path, {k: held(v) for k, v in ARRAYS.items()}, {"ptx": "yes"})


def told(folder: Path, entry: FileEntry) -> list[str]:
    return [found.sentence for found in mismatches(folder, [entry])]


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    written(tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == ARRAYS.keys()
    assert all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "x.safetensors", metadata={"k": "v"})
    file = TensorFile(tmp_path / "x.safetensors")
    assert file.metadata == {"k": "v"}
    target = np.zeros(2, dtype=np.float32)
    file.read_into("a/w", 5 * 4, memoryview(target))
    assert target.tolist() == [5.0, 6.0]


def test_size_and_hash_are_those_of_the_bytes_on_disk(tmp_path: Path) -> None:
    entry = written(tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    assert entry == FileEntry("x.safetensors", len(data), hashlib.sha256(data).hexdigest())
    assert mismatches(tmp_path, [entry]) == []
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o600


def test_a_flipped_byte_a_short_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    entry = written(tmp_path / "x.safetensors")
    path = tmp_path / "x.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert told(tmp_path, entry) == [f"{path} is not what was written: its hash differs"]
    path.write_bytes(data[:-1])
    assert "bytes and was written with" in told(tmp_path, entry)[0]
    with pytest.raises(DamagedCheckpoint, match=r"x\.safetensors cannot be read: b is cut off"):
        TensorFile(path)
    path.unlink()
    assert told(tmp_path, entry) == [f"{path} is missing"]


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\xff" * 8, (5).to_bytes(8, "little") + b"{}"])
def test_what_is_no_tensor_file_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match="x cannot be read"):
        TensorFile(tmp_path / "x")


def test_reading_behind_a_tensors_end_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "x.safetensors")
    with pytest.raises(DamagedCheckpoint, match="has 48 bytes"):
        TensorFile(tmp_path / "x.safetensors").read_into("a/w", 44, memoryview(bytearray(8)))
