"""`ptx status --watch --json`: an object a line at each look, until nobody reads on or, of one run,
until it has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import MadeRun
from support.ptx import CHECKOUT

Start = Callable[..., "subprocess.Popen[str]"]
PIPE_CLOSED = 141


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path / "runs", "live-aaaaaa").supervised().started()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Start]:
    started = []

    def start(*argv: str) -> subprocess.Popen[str]:
        env = {"PTX_RUNS": str(tmp_path / "runs"), "XDG_STATE_HOME": str(tmp_path / "state")}
        command = [sys.executable, "-m", "orchestrator.cli.main", "status", "--watch", "--json"]
        started.append(
            subprocess.Popen(
                [*command, *argv],
                stdout=subprocess.PIPE,
                env=os.environ | env,
                cwd=CHECKOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line, which is there as soon as it was written."""
    assert process.stdout is not None
    fields: dict[str, Any] = json.loads(process.stdout.readline())
    assert fields["v"] == 1
    return fields


@pytest.mark.slow
def test_of_all_runs_it_goes_on_when_none_is_live_and_ends_with_its_reader(
    run: MadeRun, watch: Start
) -> None:
    process = watch("--every", "1s")
    assert [one["state"] for one in told(process)["runs"]] == ["running"]
    run.ended([0, 0])
    while told(process)["runs"][0]["state"] != "completed":
        pass
    assert [one["run_id"] for one in told(process)["runs"]] == ["live-aaaaaa"]
    process.stdout.close()  # type: ignore[union-attr]
    assert process.wait(60) == PIPE_CLOSED


def test_its_end_does_not_wait_for_the_next_look(run: MadeRun, watch: Start) -> None:
    for argv in ((), ("live",)):
        process = watch(*argv, "--every", "1d")
        told(process)
        process.stdout.close()  # type: ignore[union-attr]
        assert process.wait(60) == PIPE_CLOSED


def test_of_one_run_it_ends_with_the_run(run: MadeRun, watch: Start) -> None:
    process = watch("live", "--every", "1s")
    assert told(process)["state"] == "running"
    run.ended([0, 0])
    last = {}
    for line in process.stdout or ():
        last = json.loads(line)
    assert last["state"] == "completed"
    assert process.wait(60) == 0
