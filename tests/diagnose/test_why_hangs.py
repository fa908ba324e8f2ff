"""One rank stops in the middle while the others wait for it in a collective; no script knows of
ptx. Found, its stack taken, named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.ptx import LAUNCHERS, Ptx, exit_records, rank_logs

pytestmark = pytest.mark.slow

SCRIPT = """
import os, time
import torch, torch.distributed as dist

def load(step):
    if int(os.environ["RANK"]) == {stuck} and step == 3:
        time.sleep(3600)
    return torch.ones(8)

dist.init_process_group("gloo")
for step in range(1000):
    batch = load(step)
    {collective}
    print("step", step, flush=True)
"""
COLLECTIVE = {
    "torchrun": "dist.all_reduce(batch)",
    "accelerate": "dist.all_reduce(batch, async_op=True).wait()",
    "deepspeed": """
    if step == 0:
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 8))
    model(batch).sum().backward()
""",
}
"""They show in different frames that a rank waits."""
STUCK = {"torchrun": 2, "accelerate": 0, "deepspeed": 1}
CALL = {"torchrun": "all_reduce", "accelerate": "<module>", "deepspeed": "backward"}
LINE = 7
"""Of the script: where the stuck rank sleeps."""
LIMIT, LATE = 5, 30
"""Seconds of silence that are a hang, and after which it must be found on any machine."""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """By launcher; (the run folder, what `ptx why --json` says, what `ptx why` prints)."""
    folder = tmp_path_factory.mktemp("hangs")
    ptx = Ptx(folder / "runs", {"XDG_STATE_HOME": str(folder / "state")})

    def one(name: str) -> tuple[Path, dict[str, Any], str]:
        place = folder / name
        place.mkdir()
        (place / "train.py").write_text(
            SCRIPT.format(stuck=STUCK[name], collective=COLLECTIVE[name])
        )
        spec = {
            "name": name,
            "launcher": name,
            "entrypoint": {"script": "train.py"},
            "resources": {"procs_per_node": 3},
            "restart": {"hang_after": f"{LIMIT}s"},
        }
        (place / "job.yaml").write_text(yaml.safe_dump(spec))
        run = ptx.submit(place / "job.yaml", "--scheduler", "local", "--gpus", "0")
        waited = ptx("wait", run.name, "--timeout", "100s", timeout=120)
        assert waited.returncode == 1, ptx.story(run)
        return run, json.loads(ptx.ok("why", run.name, "--json")), ptx.ok("why", run.name)

    with ThreadPoolExecutor(2) as pool:
        yield dict(zip(LAUNCHERS, pool.map(one, LAUNCHERS), strict=True))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_rank_that_stopped_is_named_with_its_line(name: str, verdicts: dict[str, Any]) -> None:
    run, told, _ = verdicts[name]
    assert (told["class"], told["first"]["rank"]) == ("hang", STUCK[name]), told
    assert told["stands"][0] == {
        "ranks": [STUCK[name]],
        "call": "load",
        "path": str(run.parents[1] / name / "train.py"),
        "line": LINE,
        "stopped": True,
    }
    assert told["unsure"] == []
    assert told["first"]["message"] == f"stopped in load (train.py:{LINE})"
    assert told["evidence"][0]["text"].endswith(f"train.py:{LINE} in load")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_others_are_one_line(name: str, verdicts: dict[str, Any]) -> None:
    _, told, page = verdicts[name]
    others = sorted({0, 1, 2} - {STUCK[name]})
    assert [(row["ranks"], row["call"]) for row in told["stands"][1:]] == [(others, CALL[name])]
    assert f"{CALL[name]}, train.py:" in page
    assert "2 ranks (rank" in page
    assert told["sentence"].endswith(f"while 2 others waited in {CALL[name]}.")


def test_all_stacks_were_taken_from_living_ranks(verdicts: dict[str, Any]) -> None:
    """Else the cases show nothing: each rank ended by SIGABRT, none by the launcher."""
    for name, (run, _, _) in verdicts.items():
        assert {record["signal"] for record in exit_records(run)} == {6}, name


def test_it_was_found_once_its_limit_was_over_and_not_before(verdicts: dict[str, Any]) -> None:
    for name, (run, _, _) in verdicts.items():
        lines = [line for log in rank_logs(run) for line in log.read_text().splitlines()]
        stamps = [line.partition(" ")[0] for line in lines if " o step " in line]
        last = datetime.fromisoformat(max(stamps)).timestamp()
        ended = min(record["ended"] for record in exit_records(run))
        assert LIMIT <= ended - last < LIMIT + LATE, name


def test_no_core_was_left(verdicts: dict[str, Any]) -> None:
    for name, (run, _, _) in verdicts.items():
        assert not [entry for entry in os.listdir(run.parents[1] / name) if "core" in entry]
