"""Findings about GPUs, from samples as a sampler leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import MadeRun
from support.made_samples import gpu, leave_samples, sample

from orchestrator.diagnose.performance import findings
from orchestrator.runs.layout import RunLayout

T = 1_700_000_000.0
SLOW = [[1, 0.41, 0.0], [0, 0.30, 0.0]]


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    """Ten minutes of training on two GPUs, a report every 20 s."""
    run = MadeRun(tmp_path, "made-aaaaaa").submitted().started()
    return reported(run, slow=[[1, 0.301, 0.0], [0, 0.30, 0.0]])


def reported(run: MadeRun, slow: list[list[float]], **changed: Any) -> MadeRun:
    run.layout.metrics(0).unlink(missing_ok=True)
    for number in range(31):
        fields = {"step": 20 * number, "start_step": 0, "seconds": 20.0, "slow_ranks": slow}
        fields |= {"rank_seconds_median": slow[-1][1], "data_wait_longest": 0.0}
        run.metrics(t=20 * number, **{**fields, "data_read_median": 0.1, **changed})
    return run


def samples(
    *gpus: dict[str, Any], every: float = 5.0, count: int = 120
) -> Iterator[dict[str, Any]]:
    return (sample(T + every * n, gpus, (0, 1)) for n in range(count))


def test_healthy_gpus_under_a_power_cap_are_nothing_to_tell(run: MadeRun) -> None:
    leave_samples(run.layout, samples(gpu(0), gpu(1, util=60)))
    assert findings(run.layout) == ()


def test_a_throttled_gpu_is_named_with_reason_and_temperature(run: MadeRun) -> None:
    hot = gpu(1, throttle=["hw_slowdown", "hw_thermal"], temperature=91)
    mixed = [*samples(gpu(0), gpu(1), count=60)]
    mixed += [sample(T + 300 + 5 * n, (gpu(0), hot), (0, 1)) for n in range(60)]
    path = leave_samples(run.layout, mixed)
    (finding,) = findings(run.layout)
    assert (finding.kind, finding.ranks, finding.nodes) == ("throttled-gpu", (1,), (0,))
    assert finding.sentence == (
        "GPU 1 of node-0000, rank 1 (50% of 120 samples under load: hw_slowdown, hw_thermal, up "
        "to 91 °C): throttled, slower than it can compute."
    )
    (evidence,) = finding.evidence
    assert evidence.path == str(path.relative_to(run.layout.root))
    assert evidence.line == 120
    assert "hw_thermal" in evidence.text


@pytest.mark.parametrize(
    "changed",
    [
        {"throttle": ["hw_thermal"], "util": 3},  # nothing to compute: see idle
        {"throttle": ["sync_boost", "sw_power_cap"]},
        {"throttle": None, "util": None},
        {"throttle": "hw_thermal", "util": "x", "ranks": 7, "index": None},
    ],
)
def test_what_does_not_slow_a_busy_gpu_is_no_throttling(
    run: MadeRun, changed: dict[str, Any]
) -> None:
    leave_samples(run.layout, samples(gpu(0), gpu(1, **changed)))
    assert [one.kind for one in findings(run.layout)] in ([], ["idle-gpu"])
    assert bool(findings(run.layout)) == (changed.get("util") == 3)


def test_a_short_heat_is_no_finding(run: MadeRun) -> None:
    hot = gpu(0, throttle=["hw_thermal"])
    mixed = [sample(T + 5 * n, [hot if n < 20 else gpu(0)], [0]) for n in range(120)]
    leave_samples(run.layout, mixed)
    assert findings(run.layout) == ()


def test_an_idle_gpu_is_named_while_training_goes_on(run: MadeRun) -> None:
    leave_samples(run.layout, samples(gpu(0), gpu(1, util=0, ranks=[])))
    (finding,) = findings(run.layout)
    assert finding.kind == "idle-gpu"
    assert finding.sentence == (
        "GPU 1 of node-0000 was used 0 % on average over 10 minutes in which training made steps."
    )


def test_nobody_calls_a_gpu_idle_that_was_before_or_after_training(run: MadeRun) -> None:
    before = [sample(T - 1000 + 5 * n, [gpu(0, util=0)], [0]) for n in range(190)]
    after = [sample(T + 700 + 5 * n, [gpu(0, util=0)], [0]) for n in range(190)]
    leave_samples(run.layout, [*before, *samples(gpu(0)), *after])
    assert findings(run.layout) == ()
    run.layout.metrics(0).unlink()  # a script of one's own: nobody knows what it did
    assert findings(run.layout) == ()


def test_a_straggler_with_a_throttled_gpu_is_slow_for_that(run: MadeRun) -> None:
    reported(run, SLOW)
    leave_samples(run.layout, samples(gpu(0), gpu(1, throttle=["hw_thermal"], temperature=90)))
    (run.layout.node(0, 0) / "rank-00001.log").touch()
    slow, hot = findings(run.layout)
    assert slow.sentence == (
        "rank 1 (node-0000) needs 0.41 s a step by itself (forward and data), the others 0.30 s: "
        "all wait for it, 0.11 s of each step of 1.00 s."
    )
    assert slow.cause == hot.sentence.rstrip(".")


@pytest.mark.parametrize(
    "slow",
    [
        [[1, 0.37, 0.0], [0, 0.30, 0.0]],  # not by a quarter
        [[1, 0.05, 0.0], [0, 0.03, 0.0]],  # of a second: nobody feels it
    ],
)
def test_small_differences_make_no_straggler(run: MadeRun, slow: list[list[float]]) -> None:
    assert findings(reported(run, slow).layout) == ()


def test_another_rank_each_time_makes_no_straggler(run: MadeRun) -> None:
    run.layout.metrics(0).unlink()
    for number in range(30):
        slow = SLOW if number % 2 else [[0, 0.41, 0.0], [1, 0.30, 0.0]]
        fields = {"step": 20 * number, "seconds": 20.0, "slow_ranks": slow}
        run.metrics(t=20 * number, **fields, rank_seconds_median=0.30)
    assert findings(run.layout) == ()


def test_one_rank_that_waits_is_not_a_run_that_waits(run: MadeRun) -> None:
    """Reading takes most ranks a tenth of a step."""
    assert findings(reported(run, SLOW[1:], data_wait_longest=0.6).layout) == ()
    found = findings(reported(run, SLOW[1:], data_wait_longest=0.6, data_read_median=0.9).layout)
    assert [one.kind for one in found] == ["data-bound"]
    assert found[0].sentence == (
        "training waits for data 60% of the time, 0.60 s of each step of 1.00 s: reading a step's "
        "data takes a rank 0.90 s."
    )


def test_hostile_files_are_nothing_to_tell(run: MadeRun) -> None:
    reported(run, [[True, 0.4, 0.0], ["x", 1, 2], [1], [1, 1e400, 0.0]])  # type: ignore[list-item]
    path = leave_samples(run.layout, [])
    path.write_bytes(b'{"v":1,"t":1700000100,"gpus":[7,null,{"util":1e999}]}\n\x00\xff{\n[[[\n')
    assert findings(run.layout) == ()
    path.unlink()
    path.mkdir()
    run.layout.metrics(0).unlink()
    run.layout.metrics(0).mkdir()
    assert findings(RunLayout(run.layout.root)) == ()
