"""The loop, in real ranks: what ends it, what it evaluates, what it reports."""

from __future__ import annotations

from typing import Any

import pytest
from support.looped import Found, through_loop

pytestmark = pytest.mark.slow

OPTIMIZER = {"name": "sgd", "lr": 0.1}
PLAIN: dict[str, Any] = {"micro_batch": 2, "optimizer": OPTIMIZER}
FAILING = {"fails_at": (1, 3)}


def _evaluated(**evaluation: Any) -> dict[str, Any]:
    return PLAIN | {"evaluation": evaluation}


CASES: dict[str, dict[str, Any]] = {
    "plain": {"training": PLAIN, "steps": 5, "every_steps": 2},
    "bad line": {"training": PLAIN, "steps": 9, "data": FAILING},
    "bad first line": {"training": PLAIN, "data": {"fails_at": (1, 0)}},
    "bad second line": {"training": PLAIN, "data": {"fails_at": (0, 1)}},
    "bad last line": {"training": PLAIN, "steps": 4, "data": FAILING},
    "bad line, uneven": {"training": PLAIN, "steps": 9, "data": FAILING | {"uneven": True}},
    "bug": {"training": PLAIN, "steps": 9, "data": FAILING | {"why": "bug"}},
    "bad held-out line": {
        "training": _evaluated(every_steps=2),
        "evaluation": "heldout",
        "heldout": {"fails_at": (1, 2)},
    },
    "bad first held-out line": {
        "training": _evaluated(every_steps=2),
        "evaluation": "heldout",
        "heldout": {"fails_at": (0, 0)},
    },
    "evaluated": {
        "training": _evaluated(every_steps=2),
        "steps": 5,
        "every_steps": 5,
        "evaluation": [3.0, 2.0, 2.5],
    },
    "evaluated at the end": {"training": PLAIN, "evaluation": "heldout", "every_steps": 3},
    "early": {
        "training": _evaluated(every_steps=1, patience=2, min_delta=0.5),
        "steps": 9,
        "evaluation": [3.0, 2.0, 1.9, 1.8, 0.0],
    },
    "skipped": {"training": PLAIN | {"accumulation": 2}, "data": {"skipped": 3}},
    "uneven": {"training": PLAIN | {"accumulation": 2}, "data": {"uneven": True}, "steps": 6},
    "fp16": {
        "training": PLAIN | {"precision": "fp16-mixed", "clip_grad_norm": 1.0},
        "loss_scale": 2.0**22,
        "steps": 12,
    },
}
ALONE = {
    "uneven": {"training": PLAIN | {"micro_batch": 8}, "data": {"uneven": True}, "steps": 6},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return through_loop(tmp_path_factory.mktemp("two"), CASES, world_size=2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return through_loop(tmp_path_factory.mktemp("one"), ALONE, world_size=1)


@pytest.mark.parametrize("name", ["bad line", "bad line, uneven", "bad last line"])
def test_data_found_bad_in_one_rank_ends_all_before_that_step(
    found: dict[str, Found], name: str
) -> None:
    for rank in found[name]:
        assert rank["error"] == "rank 1: train.jsonl line 7 has no field text"
        assert rank["kind"] == "TrainingFailed"
        assert len(rank["spread"]) == 3  # batches 0, 1 and 2 were good


def test_bad_data_at_the_very_start_ends_all_before_the_first_step(
    found: dict[str, Found],
) -> None:
    for name, failing in (("bad first line", 1), ("bad second line", 0)):
        for rank in found[name]:
            assert rank["error"] == f"rank {failing}: train.jsonl line 7 has no field text"
            assert rank["spread"] == []


def test_a_defect_keeps_its_traceback_where_it_happened_and_ends_the_others_in_words(
    found: dict[str, Found],
) -> None:
    other, failing = found["bug"]
    assert failing["kind"] == "KeyError"
    assert other["kind"] == "TrainingFailed"
    assert other["error"] == "rank 1: KeyError: 'a column that is not there'"


def test_heldout_data_found_bad_in_one_rank_ends_all(found: dict[str, Found]) -> None:
    for name, failing in (("bad held-out line", 1), ("bad first held-out line", 0)):
        for rank in found[name]:
            assert rank["error"] == f"rank {failing}: train.jsonl line 7 has no field text"


def test_evaluation_comes_every_n_steps_and_after_the_last(found: dict[str, Found]) -> None:
    first, second = found["evaluated"]
    records = first["records"]
    assert [(r["step"], r["eval_loss"]) for r in records] == [(2, 3.0), (4, 2.0), (5, 2.5)]
    for rank in (first, second):
        assert (rank["ended"], rank["steps_done"]) == ("done", 5)
        assert (rank["eval_loss"], rank["best_loss"]) == (2.5, 2.0)


def test_without_an_interval_the_heldout_loss_is_found_once_at_the_end(
    found: dict[str, Found],
) -> None:
    first, second = found["evaluated at the end"]
    assert [r["eval_loss"] is None for r in first["records"]] == [True, False]
    assert first["eval_loss"] == second["eval_loss"] == first["records"][-1]["eval_loss"]
    assert 0.0 < first["eval_loss"] < first["records"][0]["loss"]


def test_training_ends_early_on_all_ranks_when_the_heldout_loss_gets_no_better(
    found: dict[str, Found],
) -> None:
    for rank in found["early"]:
        # 1.9 and 1.8 are lower than 2.0, and not by 0.5.
        assert (rank["ended"], rank["steps_done"]) == ("early", 4)
        assert rank["best_loss"] == 1.8


def test_samples_that_could_not_be_read_are_counted_over_all_ranks(
    found: dict[str, Found],
) -> None:
    records = found["skipped"][0]["records"]
    assert [record["samples_skipped"] for record in records] == [12, 24, 36, 48]


def test_steps_that_fp16_overflow_skipped_are_counted(found: dict[str, Found]) -> None:
    records = found["fp16"][0]["records"]
    finite = [record["grad_norm"] is not None for record in records]  # infinite where skipped
    so_far = [finite[: step + 1].count(False) for step in range(len(finite))]
    assert [record["steps_skipped"] for record in records] == so_far
    assert 0 < so_far[-1] < len(finite)


def test_uneven_samples_over_two_ranks_train_as_on_one(
    found: dict[str, Found], alone: dict[str, Found]
) -> None:
    two, one = found["uneven"][0]["records"], alone["uneven"][0]["records"]
    assert [r["loss"] for r in two] == pytest.approx([r["loss"] for r in one], abs=1e-5)
    assert two[-1]["loss"] < two[0]["loss"]


def test_reports_come_every_n_steps_and_after_the_last(found: dict[str, Found]) -> None:
    first, second = found["plain"]
    assert [record["step"] for record in first["records"]] == [2, 4, 5]
    assert second["records"] == []
    for record in first["records"]:
        assert 0.0 <= record["data_share"] <= 1.0
        assert record["eval_loss"] is None
        assert record["tokens_per_s"] == pytest.approx(16 * record["samples_per_s"])


def test_no_thread_outlives_a_training_whatever_ended_it(found: dict[str, Found]) -> None:
    ours = ("feed", "restart", "evaluation")
    names = [name for ranks in found.values() for rank in ranks for name in rank["threads"]]
    assert "MainThread" in names
    assert [name for name in names if name.startswith(ours)] == []
