"""Whatever happens while a checkpoint is saved, there is a whole one to go on from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.training_ranks import CHECKOUT, Ended, all_well, plan_file, run

from orchestrator import __version__
from orchestrator.checkpoints.manifest import read_manifest

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parent.parent / "support"
SETTINGS = {
    "training": {"micro_batch": 2, "optimizer": {"lr": 1e-2}},
    "checkpoint": {"every_steps": 2, "keep_last": 9},
    "steps": 6,
}
DAMAGES = {
    "truncated": "rank-00001.safetensors has ",
    "flipped": "rank-00000.safetensors is not what was written: its hash differs",
    "missing": "rank-00001.safetensors is missing",
    "torn": "manifest.json cannot be read",
}
FILES = {"flipped": "rank-00000.safetensors", "torn": "manifest.json"}
REFUSED = {
    "everybody's": "rank-00001.safetensors can be written by everybody",
    "the group's": "rank-00001.safetensors can be written by its group",
    "the group's folder": "step-00000006.a000 can be written by its group",
    "somebody's": "rank-00001.safetensors belongs to another user",
}


def case(*starts: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return SETTINGS | {"starts": list(starts)} | changed


def damaged(name: str) -> dict[str, Any]:
    return {"damage": name, "file": FILES.get(name, "rank-00001.safetensors")}


ON_SIGNAL = {"on_signal": True}
CLIPPED = SETTINGS["training"] | {"clip_grad_norm": 1.0}
LEFT_OUT = (
    ("fp16", {"training": CLIPPED | {"precision": "fp16-mixed"}}),
    ("zero", {"strategy": {"name": "zero", "stage": 2}, "training": CLIPPED}),
    ("zero 3", {"strategy": {"name": "zero", "stage": 3}, "training": CLIPPED}),
)
OVERFLOWS = {
    "clipped": {"training": CLIPPED},
    "not clipped": {},
    "fsdp clipped": {"strategy": {"name": "fsdp"}, "training": CLIPPED},
    "fsdp not clipped": {"strategy": {"name": "fsdp"}},
    "local sgd": {"training": SETTINGS["training"] | {"local_sgd": {"interval": 4}}},
    "local sgd clipped": {"training": CLIPPED | {"local_sgd": {"interval": 4}}},
    "plain sgd": {"training": {"micro_batch": 2, "optimizer": {"name": "sgd", "lr": 1e-2}}},
    "saved later": {"checkpoint": {"every_steps": 3, "keep_last": 9, "asynchronous": False}},
}
CASES = {
    **{name: case({}, damaged(name)) for name in (*DAMAGES, *REFUSED)},
    "stale": case({}, {"stale": 1}),
    "all flipped": case({}, damaged("flipped") | {"all": True}),
    "slow data": case({}, checkpoint={"every_minutes": 1, "keep_last": 9}, seconds_a_look=70),
    "full for a while": case({"stop": [9, "full", 13, "room"]}, steps=14),
    "full at a stop": case({"stop": [3, "full", 5, "file"]}, checkpoint=ON_SIGNAL),
    "full at the end": case({"stop": [3, "full"]}, checkpoint={"at_end": True}),
    "over": case({"stop": [5, "over"]}, steps=12),
    **{
        f"overflow {name}": case({"overflow": {"1": 6}}, {}, every_steps=2, **settings)
        for name, settings in OVERFLOWS.items()
    },
    **{f"left out {name}": case({"overflow": {"1": 5}}, **settings) for name, settings in LEFT_OUT},
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    """All cases in one launch of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    plan = plan_file(folder, world_size=2)
    script, cases = SUPPORT / "resume_ranks.py", json.dumps(CASES)
    ended = run(script, str(folder / "found"), cases, world_size=2, plan=plan)
    all_well(ended)
    return folder, ended


@pytest.fixture(scope="module")
def found(ranks: tuple[Path, list[Ended]]) -> dict[str, list[dict[str, Any]]]:
    each = [json.loads((ranks[0] / f"found.{rank}.json").read_text()) for rank in range(2)]
    return {name: [rank[name] for rank in each] for name in CASES}


def warnings(ranks: tuple[Path, list[Ended]], name: str) -> list[str]:
    """What rank 0 said of a case's disturbed run."""
    _, (first, second) = ranks
    assert f"/{name}/" not in second.err
    return [line for line in first.err.splitlines() if f"/{name}/disturbed/" in line]


def losses(records: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in records]


@pytest.mark.parametrize(("name", "also"), [("flipped", set()), ("left out zero 3", {"deepspeed"})])
def test_the_manifest_says_what_wrote_it(
    ranks: tuple[Path, list[Ended]], name: str, also: set[str]
) -> None:
    where = ranks[0] / "run" / name / "undisturbed" / "checkpoints"
    versions = read_manifest(where / "step-00000002.a000").versions
    assert versions.keys() == {"ptx", "python", "torch"} | also
    distributions = {package: metadata.version(package) for package in {"torch"} | also}
    assert {package: versions[package] for package in distributions} == distributions
    assert versions["ptx"] == __version__


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    ranks: tuple[Path, list[Ended]], found: dict[str, list[dict[str, Any]]], name: str
) -> None:
    first, resumed = found[name][0]["starts"]
    assert first["checkpoints"][-1] == "step-00000006.a000"
    assert [step for step, _ in losses(resumed["records"])] == [5, 6]
    assert losses(resumed["records"]) == losses(first["records"])[4:]
    (warning,) = warnings(ranks, name)
    assert warning.startswith("the checkpoint of step 6 is damaged, so not used: ")
    assert f"/step-00000006.a000/{DAMAGES[name]}" in warning
    # What it has saved anew is not the damaged one, which no later start counts among the whole.
    assert resumed["checkpoints"][-1] == "step-00000006.a001"
    assert "step-00000006.a000" not in resumed["checkpoints"]


def test_a_file_that_cannot_be_read_may_be_whole_and_nothing_is_trained_without_it(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    for rank in found["stale"]:
        first, refused = rank["starts"]
        assert refused["error"].startswith("training-failed: rank 1: /"), refused["error"]
        assert "/step-00000006.a000/rank-0000" in refused["error"]
        assert "cannot be read: Stale file handle on " in refused["error"]
        assert refused["checkpoints"] == first["checkpoints"]


def test_where_all_checkpoints_are_damaged_training_does_not_begin_anew_by_itself(
    ranks: tuple[Path, list[Ended]], found: dict[str, list[dict[str, Any]]]
) -> None:
    for rank in found["all flipped"]:
        first, refused = rank["starts"]
        assert refused["error"].startswith("training-failed: all checkpoints in /")
        assert refused["checkpoints"] == first["checkpoints"] != []
    assert len(warnings(ranks, "all flipped")) == 3


def test_before_the_first_step_there_is_nothing_to_save(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    (through,) = found["slow data"][0]["starts"]
    steps = [int(name[5:13]) for name in through["checkpoints"]]
    assert steps and min(steps) > 0, steps


@pytest.mark.parametrize("name", REFUSED)
def test_what_others_could_have_written_is_refused_by_all_ranks(
    found: dict[str, list[dict[str, Any]]], name: str
) -> None:
    if name == "somebody's" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for rank in found[name]:
        _, refused = rank["starts"]
        assert refused["error"] is not None
        assert refused["error"].startswith("untrusted-checkpoint: rank ")
        assert REFUSED[name] in refused["error"]


def test_a_full_disk_leaves_the_old_checkpoint_and_training_goes_on(
    ranks: tuple[Path, list[Ended]], found: dict[str, list[dict[str, Any]]]
) -> None:
    for rank in found["full for a while"]:
        (through,) = rank["starts"]
        assert (through["ended"], through["steps_done"]) == ("done", 14)
    first = found["full for a while"][0]
    there = {int(name[5:13]) for name in first["starts"][0]["checkpoints"]}
    assert {2, 4, 12, 14} <= there <= {2, 4, 6, 10, 12, 14}  # it was full from step 7 or 8 on
    assert losses(first["starts"][0]["records"]) == losses(first["undisturbed"]["records"])
    *said, again = warnings(ranks, "full for a while")
    assert len(said) == 7 - len(there)  # once for each that failed
    assert again.startswith("checkpoints are written again: that of step ")
    assert ".a000: File too large" in again
    for line in said:
        assert "was not written: rank 1: cannot write to /" in line
        assert ".a000: File too large; " in line
        assert line.endswith("the one before is kept, and training goes on")


def test_a_stop_that_cannot_be_saved_is_an_error_on_all_ranks(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    for rank in found["full at a stop"]:
        (stopped,) = rank["starts"]
        assert stopped["error"] is not None
        assert stopped["error"].startswith("training-failed: stopped")
        assert "no checkpoint was written: rank 1: cannot write to /" in stopped["error"]
    # Half a checkpoint would keep the disk full.
    assert found["full at a stop"][0]["starts"][0]["checkpoints"] == []


def test_an_end_that_cannot_be_saved_is_told_when_the_result_is_safe(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    for rank in found["full at the end"]:
        (ended,) = rank["starts"]
        assert (ended["error"], ended["ended"], ended["steps_done"]) == (None, "done", 6)
        assert ended["unsaved"].endswith("/step-00000006.a000: File too large")


def test_ranks_of_an_attempt_that_is_over_commit_nothing_and_end(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    for rank in found["over"]:
        (over,) = rank["starts"]
        assert over["error"] is not None
        assert over["error"].startswith("attempt-over: attempt 0 is over: attempt 1 of this run")
        assert {int(name[5:13]) for name in over["checkpoints"]} < {2, 4, 6}


def test_killed_at_random_moments_ranks_go_on_from_the_newest_whole_checkpoint(
    tmp_path: Path,
) -> None:
    """A hundred moments: python benchmarks/soak/kills_during_saves.py."""
    environ = os.environ | {
        "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tests'}",
        "OMP_NUM_THREADS": "1",
    }
    script = str(SUPPORT / "kills_during_saves.py")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path), "12", "0"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 12
    assert all(one["killed"] and one["whole"] for one in rounds), rounds
    assert rounds[-1]["newest"] > 0
    # The kills did come while something was half done.
    assert sum(one["left"] != "between" for one in rounds) >= 3, rounds


@pytest.mark.parametrize("name", OVERFLOWS)
def test_what_an_overflow_has_spoilt_is_never_a_checkpoint(
    ranks: tuple[Path, list[Ended]], found: dict[str, list[dict[str, Any]]], name: str
) -> None:
    """The gradients of step 6 are infinite, its loss is not, and it is saved right after it."""
    kept = 3 if name == "saved later" else 4
    for rank in found[f"overflow {name}"]:
        ended, resumed = rank["starts"]
        assert ended["error"].startswith("training-failed: ")
        assert f"the newest checkpoint is {ranks[0]}" in ended["error"]
        assert f"/step-{kept:08d}.a000" in ended["error"]
        if name in ("clipped", "fsdp clipped", "local sgd clipped"):
            assert "the gradient's norm is not finite at step 6, though" in ended["error"]
        else:
            assert "is not finite after step 6 (rank " in ended["error"]
        assert (resumed["error"], resumed["steps_done"]) == (None, 6)
    first = found[f"overflow {name}"][0]  # which removes what is not committed
    assert first["starts"][0]["checkpoints"][-1] == f"step-{kept:08d}.a000"
    assert losses(first["starts"][1]["records"])[-1] == losses(first["undisturbed"]["records"])[-1]


@pytest.mark.parametrize("name", [name for name, _ in LEFT_OUT])
def test_an_overflow_that_the_engine_leaves_out_ends_no_training(
    found: dict[str, list[dict[str, Any]]], name: str
) -> None:
    for rank in found[f"left out {name}"]:
        (through,) = rank["starts"]
        assert (through["error"], through["steps_done"]) == (None, 6)
        assert through["checkpoints"][-1] == "step-00000006.a000"
    first = found[f"left out {name}"][0]
    skipped = [
        each["records"][-1]["steps_skipped"] for each in (first["undisturbed"], *first["starts"])
    ]
    assert skipped[1] == skipped[0] + 1
