"""Memory that really runs out in a rank, and all ranks going on in place of themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.memory_ranks import STEPS, WANTED
from support.training_ranks import Ended, all_well, end, plan_file, start

from orchestrator.spec.policies import Checkpoint

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "support" / "memory_ranks.py"
TIGHT = 2.5 * WANTED
"""MiB: enough for micro batches of 2 on any machine, and never for 4."""


@dataclass
class Trained:
    ranks: list[Ended]
    losses: list[float]
    record: dict[str, Any] | None

    @property
    def tried(self) -> list[tuple[int, int]]:
        """Process id and micro batch of each image of rank 0."""
        found = re.findall(r"^pid (\d+) micro batch (\d+)$", self.ranks[0].out, re.MULTILINE)
        return [(int(pid), int(micro_batch)) for pid, micro_batch in found]


def _train(folder: Path, limits: dict[str, float], **training: Any) -> Trained:
    plan, out = plan_file(folder, world_size=2, training=training), folder / "losses.json"
    ranks = end(start(SCRIPT, str(out), json.dumps(limits), world_size=2, plan=plan))
    return _trained(folder, ranks)


def _trained(folder: Path, ranks: list[Ended]) -> Trained:
    out, record = folder / "losses.json", folder / "run/attempts/000/micro_batch.json"
    return Trained(
        ranks,
        json.loads(out.read_text()) if out.exists() else [],
        json.loads(record.read_text()) if record.exists() else None,
    )


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _train(tmp_path_factory.mktemp("unlimited"), {}, micro_batch=8)


def test_without_a_shortage_nothing_starts_anew(unlimited: Trained) -> None:
    all_well(unlimited.ranks)
    assert [micro_batch for _, micro_batch in unlimited.tried] == [8]
    assert unlimited.record is None
    assert len(unlimited.losses) == STEPS


def test_the_rank_with_the_store_runs_out_and_all_go_on_with_the_same_losses(
    tmp_path: Path, unlimited: Trained
) -> None:
    trained = _train(tmp_path, {"0": TIGHT}, micro_batch=8)
    all_well(trained.ranks)
    pids, sizes = zip(*trained.tried, strict=True)
    assert len(set(pids)) == 1
    assert sizes == (8, 4, 2)
    assert trained.losses[-STEPS:] == pytest.approx(unlimited.losses, abs=1e-5)
    assert trained.record is not None
    assert trained.record["v"] == 1
    assert (trained.record["micro_batch"], trained.record["accumulation"]) == (2, 4)
    assert trained.record["fails"] == [4, 8]
    assert "rank 0: memory ran out with micro batch 8" in trained.ranks[0].err
    assert "Traceback" not in trained.ranks[0].err + trained.ranks[1].err


def test_what_was_saved_before_memory_ran_out_is_kept_and_the_micro_batch_stays(
    tmp_path: Path, unlimited: Trained
) -> None:
    saving = Checkpoint(every_steps=1, asynchronous=False, at_end=True).model_dump()
    training = {"micro_batch": 8}
    plan = plan_file(tmp_path, world_size=2, training=training, checkpoint=saving)
    args = (str(tmp_path / "losses.json"), json.dumps({"0": TIGHT}), "2")
    trained = _trained(tmp_path, end(start(SCRIPT, *args, world_size=2, plan=plan)))
    all_well(trained.ranks)
    assert "memory ran out with micro batch 8" in trained.ranks[0].err
    assert "resumed after step 2 from " in trained.ranks[0].out
    assert trained.losses == pytest.approx(unlimited.losses, abs=1e-5)  # no step came twice
    fits = trained.tried[-1][1]

    # The next attempt is not told, and begins with what has been found to fit.
    args = (str(tmp_path / "again.json"), "{}")
    again = end(start(SCRIPT, *args, world_size=2, plan=plan, PTX_ATTEMPT="1"))
    all_well(again)
    assert [size for _, size in _trained(tmp_path, again).tried] == [8, fits]
    assert "resumed after step 3 from " in again[0].out


def test_under_torchrun_another_rank_runs_out_and_its_agent_sees_nothing(
    tmp_path: Path, unlimited: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_file(tmp_path, world_size=2, training={"micro_batch": 8})
    monkeypatch.setenv("PTX_PLAN", str(plan))
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parent.parent.parent))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(SCRIPT), str(tmp_path / "losses.json"), json.dumps({"1": TIGHT})]
    ended = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, timeout=240)
    trained = _trained(tmp_path, [Ended(ended.returncode, ended.stdout, ended.stderr)])
    assert ended.returncode == 0, ended.stderr
    assert "rank 1: memory ran out with micro batch 8; all ranks start anew with 4" in ended.stderr
    assert trained.record is not None
    assert trained.losses[-STEPS:] == pytest.approx(unlimited.losses, abs=1e-5)


def test_the_finder_tries_real_steps_and_training_begins_untouched(
    tmp_path: Path, unlimited: Trained
) -> None:
    trained = _train(tmp_path, {"1": TIGHT}, micro_batch=8, find_micro_batch=True)
    all_well(trained.ranks)
    assert trained.record is not None
    assert trained.record["searched"] is True
    assert list(trained.record["fits"]) == ["2"]
    assert trained.record["fails"] == [4, 8]
    assert trained.record["micro_batch"] == 2
    assert all(peak > 1 << 20 for peak in trained.record["fits"].values())
    # Not one report of a trial: the losses are those of one training from the start.
    assert trained.losses == pytest.approx(unlimited.losses, abs=1e-5)
    assert [size for _, size in trained.tried] == [8, 4, 2, 2]  # tried, then trained with


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"micro_batch": 1}, "rank 1: memory ran out with micro batch 1, the smallest"),
        (
            {"micro_batch": 8, "out_of_memory": "fail"},
            "rank 1: memory ran out with micro batch 8 (set training.out_of_memory: halve)",
        ),
    ],
)
def test_where_nothing_smaller_may_be_tried_all_ranks_end_with_one_sentence(
    tmp_path: Path, training: dict[str, Any], sentence: str
) -> None:
    trained = _train(tmp_path, {"1": 1}, **training)
    for rank in trained.ranks:
        assert rank.code == 1
        assert rank.err.startswith(f"training-failed: {sentence}")
        assert len(rank.err.splitlines()) == 1
