"""What a person is told of the checkpoints that there are, and what may go."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.made_checkpoints import made_checkpoint

from orchestrator.checkpoints import listing as listings
from orchestrator.checkpoints import tensor_file
from orchestrator.checkpoints.choose import choose
from orchestrator.checkpoints.commit import remove
from orchestrator.checkpoints.listing import listing, newest_first
from orchestrator.checkpoints.manifest import DamagedCheckpoint, FileEntry
from orchestrator.checkpoints.names import MANIFEST, step_folder, step_folders
from orchestrator.checkpoints.prune import Keep, Pruned, prune_all, to_prune
from orchestrator.checkpoints.trust import others_who_may_write
from orchestrator.checkpoints.verify import refuse_damage, verify
from orchestrator.errors import NotFound


def root(run: Path) -> Path:
    return run / "checkpoints"


def goes(
    run: Path,
    resume_from: dict[str, int] | None = None,
    *,
    attempt: int | None = None,
    apart: bool = False,
    **keep: Any,
) -> list[object]:
    found = to_prune(root(run), resume_from, Keep(**keep), attempt=attempt, apart=apart)
    return [(f.step, f.attempt) for f in found]


def flip(path: Path) -> None:
    """One byte, the size as it was."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_newest_first_and_the_newest_whole_one_is_where_a_start_continues(tmp_path: Path) -> None:
    made_checkpoint(tmp_path, 10)
    made_checkpoint(tmp_path, 20)
    made_checkpoint(tmp_path, 30, whole=False)
    found = listing(root(tmp_path), None)
    assert [(one.folder.step, one.whole, one.resumes) for one in found] == [
        (30, False, False),
        (20, True, True),
        (10, True, False),
    ]


def test_what_was_left_behind_is_shown_and_not_continued(tmp_path: Path) -> None:
    for step, attempt in ((10, 0), (20, 0), (30, 0), (15, 1)):
        made_checkpoint(tmp_path, step, attempt)
    found = listing(root(tmp_path), {"step": 10, "attempt": 1})
    assert [(one.folder.step, one.eligible, one.resumes) for one in found] == [
        (30, False, False),
        (20, False, False),
        (15, True, True),
        (10, True, False),
    ]


def test_an_unreadable_manifest_is_a_problem_and_no_checkpoint(tmp_path: Path) -> None:
    folder = made_checkpoint(tmp_path, 10)
    (folder / MANIFEST).write_text("{")
    [one] = listing(root(tmp_path), None)
    assert not one.whole and not one.resumes
    assert one.problem is not None and MANIFEST in one.problem
    assert verify(one, group_shared=False).problems == [one.problem]


def test_one_that_lacks_bytes_is_damaged_and_a_start_takes_the_one_before(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        made_checkpoint(tmp_path, step)
    os.truncate(step_folder(root(tmp_path), 30, 0).path / "rank-00001.safetensors", 100)
    (step_folder(root(tmp_path), 20, 0).path / "rank-00000.safetensors").unlink()
    found = listing(root(tmp_path), None)
    assert [(one.whole, one.resumes) for one in found] == [
        (False, False),
        (False, False),
        (True, True),
    ]
    assert "rank-00001.safetensors has 100 bytes and was written with" in str(found[0].problem)
    assert str(found[1].problem).endswith("rank-00000.safetensors is missing")
    assert choose(found, None, tmp_path).folder.step == 10
    with pytest.raises(DamagedCheckpoint, match="has 100 bytes"):
        choose(found, 30, tmp_path)


def test_of_more_files_than_one_look_takes_each_that_lacks_bytes_is_named(tmp_path: Path) -> None:
    files = [FileEntry(f"rank-{rank:05d}.safetensors", 3, "0" * 64) for rank in range(1100)]
    for one in files:
        (tmp_path / one.name).write_bytes(b"abc")
    assert tensor_file.wrong_sizes(tmp_path, files) == []
    for rank in (3, 511, 512, 1023, 1099):
        os.truncate(tmp_path / files[rank].name, 2)
    (tmp_path / files[1024].name).unlink()
    (tmp_path / files[600].name).unlink()
    (tmp_path / files[600].name).symlink_to("nowhere")
    cut = "has 2 bytes and was written with 3"
    said = {3: cut, 511: cut, 512: cut, 600: "is missing", 1023: cut, 1024: "is missing", 1099: cut}
    assert [one.sentence for one in tensor_file.wrong_sizes(tmp_path, files)] == [
        f"{tmp_path / files[rank].name} {what}" for rank, what in said.items()
    ]
    assert len(tensor_file.wrong_sizes(tmp_path / "gone", files)) == 1100


def test_what_is_newer_than_the_listing_of_its_folder_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after somebody has looked into the folder on an NFS client while it was written."""
    made_checkpoint(tmp_path, 10)
    there = os.scandir

    @contextmanager
    def of_before(folder: Path) -> Iterator[list[os.DirEntry[str]]]:
        with there(folder) as entries:
            yield [entry for entry in entries if entry.name != "rank-00001.safetensors"]

    monkeypatch.setattr(os, "scandir", of_before)
    assert [one.problem for one in listing(root(tmp_path), None)] == [None]


def test_who_wants_the_next_start_or_a_step_looks_at_no_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20, 30, 40):
        made_checkpoint(tmp_path, step)
    os.truncate(step_folder(root(tmp_path), 40, 0).path / "rank-00000.safetensors", 100)
    looked: list[str] = []

    def looks(folder: Path, files: Any) -> list[tensor_file.Mismatch]:
        looked.append(folder.name)
        return tensor_file.wrong_sizes(folder, files)

    monkeypatch.setattr(listings, "wrong_sizes", looks)
    assert choose(newest_first(root(tmp_path), None), None, tmp_path).folder.step == 30
    assert looked == ["step-00000040.a000", "step-00000030.a000"]
    assert choose(newest_first(root(tmp_path), None), 20, tmp_path).folder.step == 20
    assert looked[2:] == ["step-00000040.a000", "step-00000030.a000", "step-00000020.a000"]


def test_what_a_run_deletes_while_it_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_checkpoint(tmp_path, 10)
    [one] = listing(root(tmp_path), None)
    hashing = tensor_file.sha256_of

    def prunes_meanwhile(path: Path) -> str:
        found = hashing(path)
        remove(one.folder)
        return found

    monkeypatch.setattr(tensor_file, "sha256_of", prunes_meanwhile)
    assert one.manifest is not None and len(one.manifest.files) > 1
    assert verify(one, group_shared=False) is None
    assert not folder.exists()
    made_checkpoint(tmp_path, 10)
    with pytest.raises(DamagedCheckpoint, match="was deleted while it was read"):
        refuse_damage(folder, one.manifest)


def test_the_step_that_is_meant_is_found_or_those_that_there_are_are_named(tmp_path: Path) -> None:
    for step, attempt in ((10, 0), (20, 0), (20, 1)):
        made_checkpoint(tmp_path, step, attempt)
    found = listing(root(tmp_path), None)
    assert choose(found, 20, tmp_path).folder.attempt == 1
    assert choose(found, None, tmp_path).folder.step == 20
    with pytest.raises(NotFound, match="step 15") as error:
        choose(found, 15, tmp_path)
    assert error.value.hint == "There are steps 10, 20."
    with pytest.raises(NotFound, match="no whole checkpoint"):
        choose([], None, tmp_path)


def test_pruning_keeps_the_newest_multiples_and_the_best(tmp_path: Path) -> None:
    for step in range(10, 60, 10):
        made_checkpoint(tmp_path, step, metrics={"loss": abs(step - 20), "eval_accuracy": step})
    assert goes(tmp_path) == [(10, 0), (20, 0), (30, 0), (40, 0)]
    assert goes(tmp_path, last=3) == [(10, 0), (20, 0)]
    assert goes(tmp_path, every=20) == [(10, 0), (30, 0)]
    assert goes(tmp_path, best_metric="loss") == [(10, 0), (30, 0), (40, 0)]
    assert goes(tmp_path, best_metric="eval_accuracy") == [(10, 0), (20, 0), (30, 0), (40, 0)]


def test_pruning_never_leaves_a_torn_one_as_the_last(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        torn = made_checkpoint(tmp_path, step)
    os.truncate(torn / "rank-00000.safetensors", 100)
    assert goes(tmp_path) == [(10, 0)]


def test_pruning_keeps_the_newest_whose_hashes_are_right(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        made_checkpoint(tmp_path, step)
    for step in (30, 40):
        flip(step_folder(root(tmp_path), step, 0).path / "rank-00001.safetensors")
    assert goes(tmp_path) == [(10, 0)]
    flip(step_folder(root(tmp_path), 20, 0).path / "rank-00000.safetensors")
    assert goes(tmp_path) == []


def test_pruning_takes_no_number_for_the_best_that_is_none(tmp_path: Path) -> None:
    for step, loss in ((10, math.nan), (20, 1.0), (30, 2.0), (40, math.inf)):
        made_checkpoint(tmp_path, step, metrics={"loss": loss})
    assert goes(tmp_path, best_metric="loss") == [(10, 0), (30, 0)]


def test_pruning_leaves_what_a_file_server_does_not_show_at_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20, 30, 40, 50):
        made_checkpoint(tmp_path, step)
    os.truncate(step_folder(root(tmp_path), 10, 0).path / "rank-00000.safetensors", 100)
    scandir, read = os.scandir, Path.read_bytes

    def looks(folder: Path) -> Any:
        if "step-00000020" in str(folder):
            raise OSError(errno.ESTALE, "Stale file handle", str(folder))
        return scandir(folder)

    def reads(path: Path) -> bytes:
        if "step-00000030" in str(path):
            raise OSError(errno.ETIMEDOUT, "Connection timed out", str(path))
        return read(path)

    monkeypatch.setattr(os, "scandir", looks)
    monkeypatch.setattr(Path, "read_bytes", reads)
    found = listing(root(tmp_path), None)
    assert [one.whole for one in found] == [True, True, False, False, False]
    assert [one.away for one in found] == [False, False, True, True, False]
    assert goes(tmp_path, every=10) == [(10, 0)]
    assert goes(tmp_path) == [(10, 0), (40, 0)]


def test_pruning_leaves_what_the_running_attempt_writes_wherever_it_stands(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        made_checkpoint(tmp_path, step)
    made_checkpoint(tmp_path, 15, 1, whole=False)  # it began behind damaged ones
    assert goes(tmp_path, attempt=1) == [(10, 0), (20, 0)]
    assert goes(tmp_path, attempt=2) == [(10, 0), (15, 1), (20, 0)]


def test_where_every_attempt_begins_anew_each_keeps_its_own(tmp_path: Path) -> None:
    for step, attempt in ((10, 0), (20, 0), (2, 1), (4, 1)):
        made_checkpoint(tmp_path, step, attempt)
    assert goes(tmp_path, apart=True, attempt=1) == [(2, 1), (10, 0)]


def test_pruning_leaves_a_save_under_way_alone(tmp_path: Path) -> None:
    made_checkpoint(tmp_path, 10, whole=False)
    made_checkpoint(tmp_path, 20)
    made_checkpoint(tmp_path, 30, whole=False)
    assert goes(tmp_path) == [(10, 0)]
    made_checkpoint(tmp_path, 25, 1, whole=False)  # of one who went back to 20, and saves now
    assert goes(tmp_path, {"step": 20, "attempt": 1}) == [(10, 0), (30, 0)]
    assert goes(tmp_path / "nothing") == []


def test_a_history_that_was_left_behind_goes_and_its_successor_stays(tmp_path: Path) -> None:
    for step, attempt in ((10, 0), (20, 0), (30, 0), (15, 1)):
        made_checkpoint(tmp_path, step, attempt)
    back = {"step": 10, "attempt": 1}
    assert goes(tmp_path, back) == [(10, 0), (20, 0), (30, 0)]
    assert goes(tmp_path, back, every=20) == [(10, 0), (30, 0)]


def test_two_who_prune_at_the_same_time_both_come_to_an_end(tmp_path: Path) -> None:
    for step in range(1, 41):
        made_checkpoint(tmp_path, step)
    gone: list[Pruned] = []
    failed: list[BaseException] = []

    def prune() -> None:
        try:
            prune_all(to_prune(root(tmp_path), None, Keep()), gone.append)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=prune) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert step_folders(root(tmp_path)) == [step_folder(root(tmp_path), 40, 0)]


def test_who_else_could_have_written_it_is_told(tmp_path: Path) -> None:
    folder = made_checkpoint(tmp_path, 10)
    assert others_who_may_write(folder, group_shared=False) == []
    folder.chmod(0o770)
    assert "group" in others_who_may_write(folder, group_shared=False)[0]
    assert others_who_may_write(folder, group_shared=True) == []
    folder.chmod(0o702)
    assert "everybody" in others_who_may_write(folder, group_shared=True)[0]
