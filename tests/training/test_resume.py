"""A training that was stopped and goes on gives the losses of one that was not."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.kept_work import committed_by
from support.resume_ranks import CONTEXT, TEXT
from support.training_ranks import (
    CHECKOUT,
    TINY,
    TRAIN_LM,
    Ended,
    all_well,
    end,
    plan_file,
    run,
    start,
)

from orchestrator.checkpoints.commit import begin, commit
from orchestrator.checkpoints.manifest import Manifest
from orchestrator.checkpoints.names import committed_folders, step_folder
from orchestrator.spec.policies import Checkpoint
from orchestrator.spec.training import Training
from orchestrator.training.checkpoint.policy import Policy
from orchestrator.training.checkpoint.resume import best_so_far
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.feed import Feed
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import Layout
from orchestrator.training.plan import load_plan
from orchestrator.training.process_group import Rank
from orchestrator.training.sampling import Shuffle

pytestmark = pytest.mark.slow

RANKS = Path(__file__).parent.parent / "support" / "resume_ranks.py"
TRAIN_IMAGE = CHECKOUT / "jobs" / "train_image.py"
PLAIN = {
    "micro_batch": 2,
    "clip_grad_norm": 1.0,
    "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1},
    "schedule": {"name": "cosine", "warmup_steps": 3},
}
ON_SIGNAL = {"on_signal": True}
TWICE = [{"stop": [4, "sigterm"]}, {"stop": [5, "file"]}, {}]
ONCE = [{"stop": [5, "file"]}, {}]
EVALUATED = PLAIN | {"evaluation": {"every_steps": 1, "patience": 2, "min_delta": 0.5}}


def case(**changed: Any) -> dict[str, Any]:
    return {"training": PLAIN, "checkpoint": ON_SIGNAL, "steps": 12, "starts": TWICE} | changed


SAME = {
    "ddp": case(
        training=PLAIN | {"accumulation": 2},
        starts=[{"stop": [8, "sigterm"]}, {"stop": [9, "file"]}, {}],
    ),
    "ddp without a background": case(checkpoint=ON_SIGNAL | {"asynchronous": False}),
    "fsdp": case(strategy={"name": "fsdp"}, starts=ONCE),
    "zero 3": case(strategy={"name": "zero", "stage": 3}, starts=ONCE),
    "fp16": case(training=PLAIN | {"precision": "fp16-mixed"}, starts=ONCE),
}
OTHERS = {
    "early": case(
        training=EVALUATED,
        checkpoint=ON_SIGNAL | {"at_end": True},
        evaluation=[3.0, 2.0, 1.9, 1.8, 0.0],
        starts=[{"stop": [3, "file"]}, {}, {}],
    ),
    "best": case(
        training=PLAIN | {"evaluation": {"every_steps": 1}},
        checkpoint={"best": "eval_loss", "keep_last": 1, "on_signal": True},
        evaluation=[3.0, 2.0, 1.0, 1.5, 1.4, 1.3],
        steps=6,
        starts=[],
    ),
    "kept": case(checkpoint={"every_steps": 2, "keep_last": 1, "keep_every": 4}, starts=[]),
    "minutes": case(checkpoint={"every_minutes": 1, "keep_last": 9}, seconds_a_look=25, starts=[]),
    "at the end": case(checkpoint={"at_end": True}, steps=3, starts=[{}, {}]),
    "never": case(
        checkpoint={"every_steps": 2, "resume": "never", "keep_last": 9},
        steps=4,
        starts=[{}, {"steps": 2}],
    ),
    "back": case(
        checkpoint={"every_steps": 2, "keep_last": 9},
        steps=6,
        starts=[{}, {"resume_from": {"step": 3, "attempt": 1}}],
    ),
    "no policy": case(checkpoint={}, starts=[{"stop": [3, "sigterm"]}]),
    "larger batch": case(
        samples=40,
        starts=[{"stop": [3, "sigterm"]}, {"training": PLAIN | {"micro_batch": 4}}],
    ),
    "unreadable": case(starts=[{"stop": [5, "unreadable"]}, {}]),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """By case, what each of two ranks found; all in one launch."""
    folder = tmp_path_factory.mktemp("ranks")
    plan, out = plan_file(folder, world_size=2), folder / "found"
    cases = json.dumps(SAME | OTHERS)
    for rank in run(RANKS, str(out), cases, world_size=2, plan=plan, DS_ACCELERATOR="cpu"):
        assert rank.code == 0, rank.err
    ranks = [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in range(2)]
    return {name: [rank[name] for rank in ranks] for name in SAME | OTHERS}


def losses(records: list[dict[str, Any]]) -> dict[int, float]:
    """By step, none of which may come twice."""
    assert len({record["step"] for record in records}) == len(records)
    return {record["step"]: record["loss"] for record in records}


@pytest.mark.parametrize("name", SAME)
def test_stopped_and_resumed_losses_are_bitwise_those_of_an_undisturbed_training(
    found: dict[str, list[dict[str, Any]]], name: str
) -> None:
    first, second = found[name]
    together = [record for one in first["starts"] for record in one["records"]]
    assert losses(together) == losses(first["undisturbed"]["records"])
    assert list(losses(together)) == list(range(1, 13))  # no step lost, none done twice
    for rank in (first, second):
        *stopped, last = rank["starts"]
        assert [one["ended"] for one in stopped] == ["stopped"] * len(stopped)
        assert (last["ended"], last["steps_done"]) == ("done", 12)
        for number, one in enumerate(stopped):
            folder = f"step-{one['steps_done']:08d}.a{number:03d}"
            assert one["story"].endswith(f"/checkpoints/{folder}")
            assert one["checkpoints"][-1] == folder


def test_a_stop_is_told_with_who_asked_for_it(found: dict[str, list[dict[str, Any]]]) -> None:
    first, second = found["ddp"]
    assert second["starts"][0]["story"].startswith("stopped by SIGTERM after step ")
    assert first["starts"][1]["story"].startswith("stopped (time-limit) after step ")
    assert first["starts"][1]["step_file"]


def test_patience_is_counted_across_a_stop_and_an_ended_training_does_not_begin_again(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    for rank in found["early"]:
        assert (rank["undisturbed"]["ended"], rank["undisturbed"]["steps_done"]) == ("early", 4)
        stopped, resumed, again = rank["starts"]
        assert stopped["ended"] == "stopped"
        assert (resumed["ended"], resumed["steps_done"]) == ("early", 4)
        assert (again["ended"], again["steps_done"], again["records"]) == ("early", 4, [])
        assert resumed["best_loss"] == again["best_loss"] == 1.8


def test_the_best_checkpoint_outlives_newer_ones(found: dict[str, list[dict[str, Any]]]) -> None:
    assert found["best"][0]["undisturbed"]["checkpoints"] == ["step-00000003.a000"]


def test_the_newest_and_the_milestones_are_kept(found: dict[str, list[dict[str, Any]]]) -> None:
    kept = found["kept"][0]["undisturbed"]["checkpoints"]
    assert kept == [f"step-{step:08d}.a000" for step in (4, 8, 12)]


def test_rank_0s_clock_has_all_save_at_the_same_step(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    first, second = found["minutes"]
    assert len(first["undisturbed"]["checkpoints"]) >= 3
    assert first["undisturbed"]["checkpoints"] == second["undisturbed"]["checkpoints"]


def test_a_training_that_was_at_its_end_goes_straight_there(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    for rank in found["at the end"]:
        first, second = rank["starts"]
        assert first["checkpoints"] == second["checkpoints"] == ["step-00000003.a000"]
        assert (second["ended"], second["steps_done"], second["taken"]) == ("done", 3, [])


def test_never_begins_anew_and_leaves_what_others_saved(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    first, second = found["never"][0]["starts"]
    assert [record["step"] for record in second["records"]] == [1, 2]
    assert set(first["checkpoints"]) < set(second["checkpoints"])


def test_a_person_who_goes_back_goes_on_from_there(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    first, second = found["back"][0]["starts"]
    assert [record["step"] for record in second["records"]] == [3, 4, 5, 6]
    expected = {step: loss for step, loss in losses(first["records"]).items() if step > 2}
    assert losses(second["records"]) == expected
    assert "step-00000006.a000" in second["checkpoints"]  # another history, still there


def test_where_nothing_is_saved_the_stop_says_so(found: dict[str, list[dict[str, Any]]]) -> None:
    for rank in found["no policy"]:
        (stopped,) = rank["starts"]
        assert "no checkpoint was written (checkpoint.on_signal is off)" in stopped["story"]
        assert stopped["checkpoints"] == []


def test_another_batch_size_goes_on_at_the_right_sample(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    ranks = found["larger batch"]
    done = ranks[0]["starts"][0]["steps_done"]
    assert ranks[0]["undisturbed"]["steps_done"] == 10  # 40 samples, 2 x 2 at a time
    left = -(-(40 - 4 * done) // 8)
    assert ranks[0]["starts"][1]["steps_done"] == done + left
    taken = [samples for rank in ranks for batch in rank["starts"][1]["taken"] for samples in batch]
    shuffle = Shuffle(len(Windows(TEXT, CONTEXT)), seed=0)
    first = 4 * done
    assert sorted(taken) == sorted(
        shuffle.position(sample) for sample in range(first, first + 8 * left)
    )


def test_data_that_ends_training_does_not_end_what_was_trained(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    first, _ = found["unreadable"]
    failed, resumed = first["starts"]
    assert failed["error"] is not None
    assert "a record cannot be read" in failed["error"]
    assert losses(failed["records"] + resumed["records"]) == losses(first["undisturbed"]["records"])


# The entrypoints themselves, and kills that nobody is told of


def records_of(folder: Path, number: int) -> list[dict[str, Any]]:
    path = folder / "run" / "attempts" / f"{number:03d}" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def attempt(
    launch: Callable[..., Any], folder: Path, script: Path, args: tuple[str, ...], **plan: Any
) -> Any:
    """What `run` or `start` gives of the next attempt, whose folder is there before its ranks."""
    number = len(list(folder.glob("run/attempts/*")))
    (folder / "run" / "attempts" / f"{number:03d}").mkdir(parents=True)
    path = plan_file(folder, world_size=2, **plan)
    return launch(script, *args, world_size=2, plan=path, PTX_ATTEMPT=str(number))


def undisturbed(folder: Path, script: Path, args: tuple[str, ...], **plan: Any) -> list[Ended]:
    folder.mkdir()
    ended: list[Ended] = attempt(run, folder, script, args, **plan)
    all_well(ended)
    return ended


def disturbed(
    folder: Path, script: Path, args: tuple[str, ...], at: int, sent: signal.Signals, **plan: Any
) -> int:
    """Attempt 0 is sent a signal when rank 0 has reported step `at`; attempt 1 goes on from the
    newest checkpoint that was committed by then, whose step is returned, and ends."""
    folder.mkdir()
    ranks = attempt(start, folder, script, args, **plan)
    try:
        for line in ranks[0].stdout:
            if line.startswith(f"step {at}/"):
                break
        for rank in ranks if sent == signal.SIGKILL else ranks[1:]:
            os.kill(rank.pid, sent)
    finally:
        first = end(ranks)
    expected = -signal.SIGKILL if sent == signal.SIGKILL else 143
    assert [rank.code for rank in first] == [expected, expected], first
    committed = committed_folders(folder / "run" / "checkpoints")[-1].step
    second = attempt(run, folder, script, args, **plan)
    all_well(second)
    assert f"resumed after step {committed} from " in second[0].out
    return committed


def test_a_language_model_killed_in_its_tracks_loses_its_last_interval_and_nothing_else(
    tmp_path: Path,
) -> None:
    """Documents of many lengths, packed and shuffled, several to a sample."""
    data = tmp_path / "data.jsonl"
    texts = ["the quick brown fox jumps over the lazy dog "[: 7 + n % 37] for n in range(400)]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    args = (*TINY, f"--data={data}", f"--cache={tmp_path / 'cache'}", "--steps=80")
    undisturbed(tmp_path / "a", TRAIN_LM, args, training=PLAIN)
    whole = losses(records_of(tmp_path / "a", 0))
    for asynchronous, where in ((True, tmp_path / "b"), (False, tmp_path / "c")):
        settings = Checkpoint(every_steps=4, asynchronous=asynchronous)
        plan = {"checkpoint": settings.model_dump(), "training": PLAIN}
        committed = disturbed(where, TRAIN_LM, args, 10, signal.SIGKILL, **plan)
        first, second = (losses(records_of(where, number)) for number in range(2))
        assert max(first) < max(whole) and first | second == whole
        assert committed >= committed_by(max(first), 4, asynchronous=asynchronous)
        assert asynchronous or max(first) - committed <= 4
        assert min(second) == committed + 1
        assert all(first[step] == second[step] for step in first.keys() & second.keys())
        models = [(run / "run/model/model.safetensors") for run in (tmp_path / "a", where)]
        assert models[0].read_bytes() == models[1].read_bytes()


def test_an_image_model_with_dropout_and_augmentation_told_to_stop_loses_no_step(
    tmp_path: Path,
) -> None:
    args = (
        *("--dim=16", "--layers=1", "--heads=2", "--patch=4", "--epochs=3"),
        *("--dropout=0.2", "--crop=1", "--flip"),
    )
    plan = {
        "checkpoint": Checkpoint(on_signal=True).model_dump(),
        "training": PLAIN | {"micro_batch": 32},
        "global_batch": 64,
    }
    undisturbed(tmp_path / "a", TRAIN_IMAGE, args, **plan)
    disturbed(tmp_path / "b", TRAIN_IMAGE, args, 8, signal.SIGTERM, **plan)
    whole = losses(records_of(tmp_path / "a", 0))
    assert losses(records_of(tmp_path / "b", 0) + records_of(tmp_path / "b", 1)) == whole
    results = [
        json.loads((tmp_path / where / "run/model/evaluation.json").read_text()) for where in "ab"
    ]
    assert results[0] == results[1]


# What needs no ranks


def test_the_feed_goes_on_after_so_many_samples_whatever_a_step_takes() -> None:
    windows = Windows(TEXT, CONTEXT)
    training = Training.model_validate({"micro_batch": 2, "accumulation": 2})
    taken = []
    for rank in range(2):
        layout = Layout(1, 2, 1, 1, rank)
        with Feed(windows, layout, training, steps=3, samples=10) as feed:
            batches = [batch for _ in range(3) for batch in feed.take()]
        taken += [row.tolist() for batch in batches for row in batch.inputs["tokens"]]
    shuffle = Shuffle(len(windows), seed=0)
    expected = windows.take([shuffle.position(sample) for sample in range(10, 34)])
    assert sorted(taken) == sorted(expected.inputs["tokens"].tolist())


def test_the_clock_asks_once_and_counts_anew_from_each_save() -> None:
    now = [0.0]
    policy = Policy(Checkpoint(every_minutes=2), clock=lambda: now[0])
    asked = []
    for second in (0, 119, 120, 121, 300):
        now[0] = second
        asked.append(policy.time_is_up())
    assert asked == [False, False, True, False, False]
    policy.began()
    now[0] = 300 + 119
    assert not policy.time_is_up()
    now[0] = 300 + 120
    assert policy.time_is_up()


@pytest.mark.parametrize(
    ("name", "metrics", "score"),
    [
        ("eval_loss", {"eval_loss": 2.0}, -2.0),
        ("eval_accuracy", {"eval_accuracy": 0.5}, 0.5),
        ("eval_loss", {"loss": 2.0}, None),
        ("loss", {"loss": float("nan")}, None),
        (None, {"loss": 1.0}, None),
    ],
)
def test_the_best_is_by_the_metric_that_was_asked_for(
    name: str | None, metrics: dict[str, float], score: float | None
) -> None:
    assert Policy(Checkpoint(best=name)).score(metrics) == score


@pytest.fixture
def alone() -> Iterator[Rank]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Rank(0, 1, 0, torch.device("cpu"))
    dist.destroy_process_group()


def best(root: Path, alone: Rank, since: int) -> tuple[float, int] | None:
    """Of four checkpoints, where training goes on from `since`."""
    for step, loss in ((10, 3.0), (20, 2.0), (30, 2.5), (40, 1.0)):
        folder = step_folder(root, step, 0)
        if not folder.committed:
            begin(folder)
            metrics = {"eval_loss": loss}
            manifest = Manifest("r", step, 0, 0.0, 1, {}, {}, (), {}, metrics)
            commit(folder.path, manifest, root / "attempts")
    score = Policy(Checkpoint(best="eval_loss")).score
    return best_so_far(root, load_plan({}, gpus=0), alone, score, step_folder(root, since, 0))


def test_the_best_so_far_is_none_of_those_that_were_passed_over_as_damaged(
    tmp_path: Path, alone: Rank
) -> None:
    assert best(tmp_path, alone, since=30) == (-2.0, 20)
    assert best(tmp_path, alone, since=10) == (-3.0, 10)
    assert best(tmp_path, alone, since=40) == (-1.0, 40)


def test_none_is_the_best_because_a_file_server_does_not_show_a_better_one(
    tmp_path: Path, alone: Rank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would be pruned."""
    best(tmp_path, alone, since=30)
    away, read = step_folder(tmp_path, 20, 0).path, Path.read_bytes

    def reads(path: Path) -> bytes:
        if path.parent == away:
            raise OSError(errno.ETIMEDOUT, "Connection timed out", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", reads)
    with pytest.raises(TrainingFailed, match="it may be whole"):
        best(tmp_path, alone, since=30)
    assert best(tmp_path, alone, since=10) == (-3.0, 10)
