"""Which checkpoints there are, and which of them a start may continue from."""

from __future__ import annotations

from pathlib import Path

from orchestrator.checkpoints.names import MANIFEST, eligible, step_folder, step_folders


def _eligible(named: list[tuple[int, int]], resume_from: dict[str, int] | None) -> object:
    folders = [step_folder(Path("/run/checkpoints"), step, attempt) for step, attempt in named]
    return [(f.step, f.attempt) for f in eligible(folders, resume_from)]


HISTORY = [(100, 0), (150, 3), (200, 0), (300, 1), (300, 3), (400, 2)]


def test_without_a_word_every_checkpoint_is_eligible() -> None:
    assert _eligible(HISTORY, None) == HISTORY


def test_going_back_leaves_out_what_earlier_attempts_did_beyond_that_step() -> None:
    went_back = {"step": 100, "attempt": 3}

    assert _eligible(HISTORY, went_back) == [(100, 0), (150, 3), (300, 3)]


def test_the_step_that_was_named_is_eligible_itself_in_every_attempt() -> None:
    assert _eligible([(100, 0), (100, 1), (101, 1)], {"step": 100, "attempt": 2}) == [
        (100, 0),
        (100, 1),
    ]


def test_back_to_step_0_begins_anew_and_keeps_what_follows() -> None:
    history = [(0, 0), (100, 0), (0, 1), (50, 2)]
    assert _eligible(history, {"step": 0, "attempt": 1}) == [(0, 1), (50, 2)]


def test_other_names_are_no_checkpoints_and_big_numbers_sort_as_numbers(tmp_path: Path) -> None:
    for name in ("step-00000002.a000", "step-100000000.a1000", "step-1.a000", "x", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-100000000.a1000" / MANIFEST).write_text("{}")

    found = step_folders(tmp_path)

    assert [(f.step, f.attempt, f.committed) for f in found] == [
        (2, 0, False),
        (100_000_000, 1000, True),
    ]
