"""`ptx logs` of what is deleted while it is shown: a sentence, an exit code, and the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import PATIENCE, ROOT, FakeRun, ptx

LINES = 30_000


def started(run: FakeRun, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ptx("logs", run.layout.root, *options),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def end_of(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    with process:
        assert process.stdout is not None and process.stderr is not None
        shown, told = process.stdout.read().splitlines(), process.stderr.read()
        return process.wait(PATIENCE), shown, told


def away(folder: Path) -> None:
    """At once: who follows sees no half of it."""
    out = folder.rename(folder.with_name(".going"))
    shutil.rmtree(out)


def without_run(run: FakeRun) -> None:
    away(run.layout.root)


def without_attempt(run: FakeRun) -> None:
    away(run.layout.attempt(0))


def without_log(run: FakeRun) -> None:
    run.layout.rank_log(0, 0, 1).unlink()


@pytest.mark.slow
def test_followed_logs_that_are_deleted_are_told_and_the_run_is_seen_to_its_end(
    tmp_path: Path,
) -> None:
    goings = (without_run, without_attempt, without_log)
    runs = [FakeRun.create(tmp_path / going.__name__) for going in goings]
    for run in runs:
        run.start()
        run.log(0, "hello 0", at=1)
        run.log(1, "hello 1", at=2)
    followers = [started(run, "--follow") for run in runs]
    raw = started(runs[2], "--follow", "--raw", "--rank", "1")
    for process in followers:
        assert [line_of(process), line_of(process)] == [
            "[0 node-0000] hello 0", "[1 node-0000] hello 1",
        ]  # fmt: skip
    assert line_of(raw) == "hello 1"
    for going, run in zip(goings, runs, strict=True):
        going(run)
    assert runs[2].layout.attempt(0).exists()
    for process in followers[1:]:
        assert process.stderr is not None
        assert "went away while" in process.stderr.readline()
    runs[2].log(0, "goes on", at=3)
    for run, codes in ((runs[1], (0, 0)), (runs[2], (0, 1))):
        run.end(*codes)

    code, shown, told = end_of(followers[0])
    assert (code, shown) == (3, [])
    assert "error: The folder of run demo-abc123 went away while it was read" in told
    assert end_of(followers[1]) == (0, [], "")
    code, shown, told = end_of(followers[2])
    assert (code, shown) == (1, ["[0 node-0000] goes on"])
    assert "went away" not in told and "rank 1 on node 0 exited with 1" in told
    code, shown, told = end_of(raw)
    assert (code, shown) == (3, [])
    assert "The log of rank 1 went away while it was read" in told


@pytest.mark.parametrize("going", [without_run, without_attempt, without_log])
@pytest.mark.parametrize("options", [(), ("--grep", "."), ("--json",)])
def test_what_is_deleted_in_the_middle_of_a_merge_is_told_behind_what_is_shown(
    going: Callable[[FakeRun], None], options: tuple[str, ...], tmp_path: Path
) -> None:
    run = FakeRun.create(tmp_path)
    run.start()
    for rank in (0, 1):
        run.log(rank, *(f"line {i} {'x' * 80}" for i in range(LINES)), at=rank * 1e-7)
    run.end(0, 0)
    process = started(run, *options)
    first = line_of(process)  # more follows than a pipe holds
    going(run)
    code, shown, told = end_of(process)
    shown.insert(0, first)
    assert code == 3 and "Traceback" not in told
    place = '"rank": 0' if options == ("--json",) else "[0 node"
    mine = [line for line in shown if place in line]
    others = [line for line in shown if place not in line and "error" not in line]
    assert 0 < len(others) < LINES
    if going is without_log:
        assert [f"line {i} " in line for i, line in enumerate(mine)] == [True] * LINES
    said = told + (shown[-1] if options == ("--json",) else "")
    assert "went away while" in said
