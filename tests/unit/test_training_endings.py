"""How training ends when it cannot go on: one sentence, the same step, no hang."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from support.training_ranks import CHECKOUT, TINY, TRAIN_LM, all_well, end, plan_file, run, start

pytestmark = pytest.mark.slow

CASES = CHECKOUT / "tests" / "support" / "oracle_ranks.py"


def test_a_nan_in_one_rank_ends_all_and_names_rank_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POISON", "1:4")
    cases = json.dumps({"poisoned": {"training": {"micro_batch": 2}}})
    plan = plan_file(tmp_path, world_size=2)
    ranks = run(CASES, str(tmp_path / "out.json"), cases, world_size=2, plan=plan)
    for rank in ranks:
        assert rank.code == 1
        assert "rank 1: the loss is nan at step 4" in rank.err
        assert "Traceback" not in rank.err
    assert "step 3/6" in ranks[0].out
    assert "step 4/6" not in ranks[0].out


def test_sigterm_in_one_rank_stops_all_at_the_same_step(tmp_path: Path) -> None:
    plan = plan_file(tmp_path, world_size=2)
    ranks = start(TRAIN_LM, *TINY, "--steps=1000000", world_size=2, plan=plan)
    try:
        assert ranks[0].stdout is not None
        for line in ranks[0].stdout:
            if line.startswith("step 3/"):
                break
        os.kill(ranks[1].pid, signal.SIGTERM)
    finally:
        ended = end(ranks)
    stopped = [re.search(r"stopped(?: by SIGTERM)? after step (\d+)", rank.err) for rank in ended]
    assert all(stopped), [rank.err for rank in ended]
    assert len({match[1] for match in stopped if match}) == 1
    assert [rank.code for rank in ended] == [143, 143]
    assert not any("Traceback" in rank.err for rank in ended)


def test_sigterm_arrives_even_where_the_parent_had_it_blocked(tmp_path: Path) -> None:
    """The agent blocks it for its launcher, and a mask survives fork and exec."""
    plan = plan_file(tmp_path, world_size=1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        ranks = start(TRAIN_LM, *TINY, "--steps=1000000", world_size=1, plan=plan)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        assert ranks[0].stdout is not None
        for line in ranks[0].stdout:
            if line.startswith("step 3/"):
                break
        os.kill(ranks[0].pid, signal.SIGTERM)
    finally:
        ended = end(ranks)
    assert ended[0].code == 143
    assert "stopped by SIGTERM" in ended[0].err


@pytest.mark.parametrize(
    ("args", "changed", "sentence"),
    [
        ((), {"world_size": 2}, "2 ranks were planned and the launcher started 1"),
        ((), {"gpus_per_node": 1}, "local rank 0 was planned on a GPU of its own"),
        (("--model=/nowhere/model",), {}, "there is no model folder /nowhere/model"),
        (("--steps=1", "--epochs=1"), {}, "both steps and epochs say how long"),
        (("--output=/",), {}, "/ is there and holds no saved model"),
        (("--data=/nowhere/text",), {}, "the data /nowhere/text is not there"),
        (("--heads=3",), {}, "--dim 16 does not divide into 3 heads"),
    ],
)
def test_what_cannot_be_trained_ends_in_one_line_before_the_first_step(
    tmp_path: Path, args: tuple[str, ...], changed: dict[str, object], sentence: str
) -> None:
    plan = plan_file(tmp_path, **{"world_size": 1, **changed})  # type: ignore[arg-type]
    (rank,) = run(TRAIN_LM, *TINY, *args, world_size=1, plan=plan)
    assert rank.code == 2
    assert sentence in rank.err
    assert len(rank.err.splitlines()) == 1
    assert "step" not in rank.out
    assert not (tmp_path / "run").exists()


def test_the_whole_entrypoint_leaves_metrics_heldout_loss_and_a_sample(tmp_path: Path) -> None:
    data = tmp_path / "text.txt"
    data.write_bytes(b"the quick brown fox jumps over the lazy dog\n" * 200)
    plan = plan_file(tmp_path, world_size=2, training={"clip_grad_norm": 1.0})
    ranks = run(TRAIN_LM, *TINY, f"--data={data}", "--steps=3", world_size=2, plan=plan)
    all_well(ranks)
    assert ranks[1].out == ""
    lines = ranks[0].out.splitlines()
    assert re.fullmatch(r"held-out loss \d\.\d{4} nats/byte, [\d,]+ tokens/s", lines[-1])
    assert "sample:" in lines
    pattern = r"step \d/3 loss \d\.\d{4} lr 3\.0e-04 [\d,]+ tokens/s"
    assert sum(bool(re.match(pattern, line)) for line in lines) == 3

    path = tmp_path / "run" / "attempts" / "000" / "metrics.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    for record in records:
        known = ("step", "steps", "epoch", "loss", "lr", "samples_per_s", "memory_bytes")
        assert {"v", "t", "grad_norm", "tokens_per_s", *known} <= record.keys()
        assert record["v"] == 1
        assert record["grad_norm"] > 0
        assert record["memory_bytes"] > 1 << 20
        assert record["tokens_per_s"] == pytest.approx(16 * record["samples_per_s"])


def test_without_ptx_the_script_runs_by_itself_with_defaults() -> None:
    """On Python's own source, of which it does not read all that is held out."""
    (rank,) = run(TRAIN_LM, *TINY, "--steps=1", world_size=1)
    assert rank.code == 0, rank.err
    assert "step 1/1" in rank.out
    assert "the trained model is not kept" in rank.err
