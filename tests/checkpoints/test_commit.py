"""A checkpoint counts from its manifest on, and the last good one never goes."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checkpoints.commit import AttemptOver, begin, commit, prune, superfluous
from orchestrator.checkpoints.manifest import DamagedCheckpoint, FileEntry, Manifest, read_manifest
from orchestrator.checkpoints.names import committed_folders, step_folder, step_folders


def manifest(step: int, attempt: int = 0, **changed: object) -> Manifest:
    fields: dict[str, object] = {
        "run_id": "r",
        "step": step,
        "attempt": attempt,
        "created": 1.0,
        "world_size": 2,
        "strategy": {"name": "ddp"},
        "layout": {"replicate": 2},
        "files": (FileEntry("rank-00000.safetensors", 3, "0" * 64),),
        "state": {"samples": 80},
    }
    return Manifest(**(fields | changed))  # type: ignore[arg-type]


def saved(root: Path, step: int, attempt: int = 0, *, whole: bool = True) -> None:
    folder = step_folder(root, step, attempt)
    begin(folder)
    (folder.path / "rank-00000.safetensors").write_bytes(b"abc")
    if whole:
        commit(folder.path, manifest(step, attempt), root / "attempts")


def steps(root: Path) -> list[int]:
    return [folder.step for folder in committed_folders(root)]


def test_without_a_manifest_there_is_no_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    saved(tmp_path, 20, whole=False)
    assert steps(tmp_path) == [10]
    assert [folder.step for folder in step_folders(tmp_path)] == [10, 20]


def test_the_manifest_says_what_was_committed(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    assert read_manifest(step_folder(tmp_path, 10, 0).path) == manifest(10)


def test_an_attempt_that_is_over_commits_nothing(tmp_path: Path) -> None:
    (tmp_path / "attempts" / "001").mkdir(parents=True)
    with pytest.raises(AttemptOver, match="attempt 1 of this run has begun"):
        saved(tmp_path, 10, attempt=0)
    assert steps(tmp_path) == []
    saved(tmp_path, 10, attempt=1)
    assert steps(tmp_path) == [10]


def test_an_attempt_begins_a_step_anew_and_never_one_that_counts(tmp_path: Path) -> None:
    saved(tmp_path, 10, whole=False)
    begin(step_folder(tmp_path, 10, 0))
    assert not any(step_folder(tmp_path, 10, 0).path.iterdir())
    saved(tmp_path, 20)
    with pytest.raises(FileExistsError):
        begin(step_folder(tmp_path, 20, 0))


def test_a_later_attempt_is_preferred_at_the_same_step(tmp_path: Path) -> None:
    saved(tmp_path, 10, attempt=1)
    saved(tmp_path, 10, attempt=0)
    assert committed_folders(tmp_path)[-1].attempt == 1


def test_pruning_keeps_the_newest_the_milestones_and_the_best(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50, 60):
        saved(tmp_path, step)
    gone = prune(tmp_path, keep_last=2, keep_every=30, best=20)
    assert [folder.step for folder in gone] == [10, 40]
    assert steps(tmp_path) == [20, 30, 50, 60]


def test_pruning_takes_old_remains_and_leaves_what_is_being_written(tmp_path: Path) -> None:
    saved(tmp_path, 10, whole=False)
    saved(tmp_path, 20)
    saved(tmp_path, 30, whole=False)
    prune(tmp_path, keep_last=1)
    assert [folder.step for folder in step_folders(tmp_path)] == [20, 30]


def test_what_was_passed_over_as_damaged_pushes_out_no_whole_one(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        saved(tmp_path, step)
    damaged = {step_folder(tmp_path, step, 0) for step in (20, 30)}
    for step, there in ((15, [10, 15, 20, 30]), (20, [15, 20, 30]), (25, [20, 25, 30])):
        saved(tmp_path, step, attempt=1)
        prune(tmp_path, keep_last=2, newest=step_folder(tmp_path, step, 1), damaged=damaged)
        assert steps(tmp_path) == there


def test_nor_does_it_in_a_later_start_which_does_not_come_by_it(tmp_path: Path) -> None:
    for step in (10, 20):
        saved(tmp_path, step)
    damaged = {step_folder(tmp_path, 20, 0)}
    for step, attempt, passed_over in ((15, 1, damaged), (25, 1, damaged), (35, 2, set())):
        saved(tmp_path, step, attempt)
        newest = step_folder(tmp_path, step, attempt)
        prune(tmp_path, keep_last=3, best=20, newest=newest, damaged=passed_over)
    assert steps(tmp_path) == [15, 25, 35]


def test_one_that_cannot_be_deleted_keeps_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that damages a checkpoint may refuse to delete it, too."""
    for step in (10, 20, 30, 40):
        saved(tmp_path, step)
    damaged = step_folder(tmp_path, 20, 0)
    deletes = shutil.rmtree

    def refuses(path: Path, **how: Any) -> None:
        if path == damaged.path:
            raise OSError(errno.EUCLEAN, "Structure needs cleaning", str(path))
        deletes(path, **how)

    monkeypatch.setattr(shutil, "rmtree", refuses)
    with pytest.raises(OSError, match="needs cleaning"):
        prune(tmp_path, keep_last=1, damaged={damaged})
    assert [folder.step for folder in step_folders(tmp_path)] == [20, 40]
    assert steps(tmp_path) == [40]


def test_the_last_good_one_stays_whatever_is_asked(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    assert superfluous(step_folders(tmp_path), keep_last=0, keep_every=None, best=None) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read"),
        ("[]", "version None"),
        ('{"v": 99}', "version 99"),
        ('{"v": 1, "files": []}', "is no manifest"),
    ],
)
def test_a_bad_manifest_is_one_sentence(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DamagedCheckpoint, match=problem):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", ""])
def test_a_manifest_reaches_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    fields = json.loads(manifest(1).to_json())
    fields["files"][0]["name"] = name
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(DamagedCheckpoint, match="outside its folder"):
        read_manifest(tmp_path)
