"""What a person is told of the checkpoints that there are, and what may go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support.made_checkpoints import made_checkpoint

from orchestrator.checkpoints.choose import choose
from orchestrator.checkpoints.listing import listing
from orchestrator.checkpoints.names import MANIFEST, step_folder, step_folders
from orchestrator.checkpoints.prune import Pruned, prune_all, to_prune
from orchestrator.checkpoints.trust import others_who_may_write
from orchestrator.checkpoints.verify import verify
from orchestrator.errors import NotFound


def root(run: Path) -> Path:
    return run / "checkpoints"


def goes(run: Path, resume_from: dict[str, int] | None = None, **keep: object) -> list[object]:
    keep = {"keep_last": 1, **keep}
    return [(f.step, f.attempt) for f in to_prune(root(run), resume_from, **keep)]  # type: ignore[arg-type]


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
    assert goes(tmp_path, keep_last=3) == [(10, 0), (20, 0)]
    assert goes(tmp_path, keep_every=20) == [(10, 0), (30, 0)]
    assert goes(tmp_path, best_metric="loss") == [(10, 0), (30, 0), (40, 0)]
    assert goes(tmp_path, best_metric="eval_accuracy") == [(10, 0), (20, 0), (30, 0), (40, 0)]


def test_pruning_never_leaves_a_torn_one_as_the_last(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        torn = made_checkpoint(tmp_path, step)
    os.truncate(torn / "rank-00000.safetensors", 100)
    assert goes(tmp_path) == [(10, 0)]


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
    assert goes(tmp_path, back, keep_every=20) == [(10, 0), (30, 0)]


def test_two_who_prune_at_the_same_time_both_come_to_an_end(tmp_path: Path) -> None:
    for step in range(1, 41):
        made_checkpoint(tmp_path, step)
    gone: list[Pruned] = []
    failed: list[BaseException] = []

    def prune() -> None:
        try:
            prune_all(to_prune(root(tmp_path), None, keep_last=1), gone.append)
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
