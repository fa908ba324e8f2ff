"""Findings about real ranks over gloo: a straggler, slow data, and nothing where all is well."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.training_ranks import plan_file, run

from orchestrator.diagnose.performance import findings
from orchestrator.runs.layout import RunLayout

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "support" / "timed_ranks.py"
CASES: dict[str, dict[str, Any]] = {
    "healthy": {"steps": 400, "every_steps": 40},
    # Long beside what else a step takes, also on a machine that does much besides.
    "straggler": {"forward": [1, 0.12], "steps": 40},
    "slow data": {"data": [None, 0.3], "steps": 40},
    "slow data of one": {"data": [0, 0.3], "steps": 40},
    "all sleep": {"forward": [None, 0.04]},
    "short": {"forward": [1, 0.1], "steps": 10, "every_steps": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timed")
    plan = plan_file(folder, world_size=2)
    for rank in run(SCRIPT, str(folder), json.dumps(CASES), world_size=2, plan=plan):
        assert rank.code == 0, rank.err
    for name in CASES:
        for node in (0, 1):  # as agents would have left it: rank 1 on a node of its own
            log = RunLayout(folder / name).rank_log(0, node, node)
            log.parent.mkdir(parents=True)
            log.touch()
    return folder


def test_a_rank_slowed_in_its_forward_is_named(trained: Path) -> None:
    layout = RunLayout(trained / "straggler")
    (finding,) = findings(layout)
    assert (finding.kind, finding.ranks, finding.nodes) == ("straggler", (1,), (1,))
    said = re.match(
        r"rank 1 \(node-0001\) needs (\d+\.?\d*) s a step by itself \(forward and data\), the "
        r"others (\d+\.?\d*) (m?s): all wait for it, \d+\.?\d* m?s of each step of ",
        finding.sentence,
    )
    assert said, finding.sentence
    own, others = float(said[1]), float(said[2]) / (1000 if said[3] == "ms" else 1)
    assert own >= 0.12 and own > others
    (evidence,) = finding.evidence
    assert evidence.path == "attempts/000/metrics.jsonl" and evidence.line is not None
    line = (layout.root / evidence.path).read_text().splitlines()[evidence.line - 1]
    assert json.loads(line)["slow_ranks"][0][0] == 1
    assert evidence.text.startswith('"slow_ranks": [[1, ')


def test_a_slow_data_loader_is_called_data_bound(trained: Path) -> None:
    (finding,) = findings(RunLayout(trained / "slow data"))
    assert (finding.kind, finding.ranks) == ("data-bound", ())
    assert re.match(r"training waits for data \d\d% of the time, \d+", finding.sentence)


def test_a_rank_whose_own_data_is_slow_is_named_with_that_cause(trained: Path) -> None:
    (finding,) = findings(RunLayout(trained / "slow data of one"))
    assert (finding.kind, finding.ranks, finding.by_data) == ("straggler", (0,), True)
    assert finding.cause.startswith("its data takes longer than the others', ")


@pytest.mark.parametrize("name", ["healthy", "all sleep", "short"])
def test_nothing_is_said_of_equals_and_of_little(trained: Path, name: str) -> None:
    records = RunLayout(trained / name).metrics(0).read_text().splitlines()
    assert len(records) >= 6
    assert findings(RunLayout(trained / name)) == ()


def test_reports_hold_the_slowest_ranks_and_the_median(trained: Path) -> None:
    for name, case in CASES.items():
        for line in RunLayout(trained / name).metrics(0).read_text().splitlines():
            record = json.loads(line)
            seconds = [own for _, own, _ in record["slow_ranks"]]
            assert seconds == sorted(seconds, reverse=True)
            assert sorted(rank for rank, _, _ in record["slow_ranks"]) == [0, 1]
            assert record["rank_seconds_median"] == seconds[1]
            assert record["rank_seconds_reason"] is None
            assert all(0 <= data <= own for _, own, data in record["slow_ranks"])
        assert case


def test_a_run_without_anything_has_no_finding(tmp_path: Path) -> None:
    assert findings(RunLayout(tmp_path / "none")) == ()
    (tmp_path / "run" / "attempts" / "000").mkdir(parents=True)
    assert findings(RunLayout(tmp_path / "run")) == ()
