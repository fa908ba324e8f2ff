"""What `ptx submit --follow` shows, on a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import FOLLOW, PATIENCE, ROOT, FakeRun, Terminal


def follow(run: FakeRun) -> list[str]:
    return [sys.executable, "-c", FOLLOW, str(run.layout.root)]


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    run = FakeRun.create(tmp_path)
    run.start()
    run.log(0, "rank 0 says", at=1)
    run.log(1, "rank 1 says", at=2)
    run.log(1, "rank 1 warns", mark="e", at=3)
    run.metrics(1, 40, 4.0)
    run.metrics(20, 40, 2.5)
    return run


def piped(run: FakeRun) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        follow(run), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_completed_run_ends_with_its_result(run: FakeRun) -> None:
    run.end(0, 0)
    done = piped(run)
    assert done.returncode == 0
    assert done.stdout == "[0 node-0000] rank 0 says\n[1 node-0000 err] rank 1 warns\n"
    for words in (
        "demo-abc123 completed after",
        "All 2 ranks exited with 0.",
        "20 of 40 steps, loss 2.5 (first 4), 12.3k tokens/s",
        f"files: {run.layout.root}",
        "next: ptx status demo-abc123",
    ):
        assert words in done.stderr
    assert "\x1b" not in done.stderr


def test_a_failed_run_ends_with_the_first_rank_that_failed(run: FakeRun) -> None:
    record = {"v": 1, "exit_code": 7, "last_lines": ["1%\r2%\r", "ValueError: \x1b[2Jbad batch"]}
    run.layout.exit_record(0, 0, 1).write_text(json.dumps(record))
    run.end(0, 7, message="ValueError: bad batch")
    done = piped(run)
    assert done.returncode == 1
    assert (
        "last lines of rank 1, which failed first:\n  | 2%\n  | ValueError: bad batch\n"
        in done.stderr
    )
    assert "Rank 1 on node 0 (here) exited with 7: ValueError: bad batch." in done.stderr
    assert "ptx logs demo-abc123 --rank 1" in done.stderr


def test_a_launch_error_ends_with_the_launchers_last_lines(tmp_path: Path) -> None:
    run = FakeRun.create(tmp_path)
    run.start()
    (run.layout.node(0, 0) / "launcher.log").write_text("no such module\n")
    run.end(reason="setup-failed")
    done = piped(run)
    assert done.returncode == 1
    assert "  | no such module\n" in done.stderr and "launch-error" in done.stderr


def test_a_pipe_gets_progress_in_plain_lines_and_no_bar(run: FakeRun) -> None:
    with subprocess.Popen(
        follow(run), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("step 20/40  50%  loss 2.5000  12.3k tokens/s")
        run.end(0, 0)
        assert process.wait(PATIENCE) == 0
        assert not re.search("[\r\x1b━]", process.stderr.read())


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_a_bar_that_fits_and_goes_away(run: FakeRun, columns: int) -> None:
    terminal = Terminal(follow(run), columns)
    terminal.wait_for("50%")
    run.log(0, "while the bar stands", at=9)
    terminal.wait_for("while the bar stands")
    run.metrics(40, 40, 1.5)
    terminal.wait_for("100%")
    run.end(0, 0)
    assert terminal.end() == 0
    bars = re.findall(r"\r\x1b\[K\x1b\[\?7l(.*?)\x1b\[\?7h", terminal.shown, re.DOTALL)
    assert bars and all(len(re.sub(r"\x1b\[\d+m", "", bar)) < columns for bar in bars)
    # What stays on the screen once every erased line is gone:
    left = re.sub(r"[^\n]*\r\x1b\[K", "", terminal.shown)
    assert "━" not in left and "while the bar stands" in left and "12.3k tokens/s" in left


@pytest.mark.parametrize(("env", "bar", "colour"), [
    ({"TERM": "dumb"}, False, False),
    ({"NO_COLOR": "1"}, True, False),
    ({}, True, True),
])  # fmt: skip
def test_the_terminal_is_taken_as_it_says_it_is(
    run: FakeRun, env: dict[str, str], bar: bool, colour: bool
) -> None:
    terminal = Terminal(follow(run), **env)
    terminal.wait_for("50%")
    run.end(0, 0)
    assert terminal.end() == 0
    assert ("━" in terminal.shown) == bar
    assert bool(re.search(r"\x1b\[\d+m", terminal.shown)) == colour


def test_what_a_run_waits_for_is_shown(tmp_path: Path) -> None:
    run = FakeRun.create(tmp_path)
    run.event("waiting_for_gpus", wanted=2, free=1)
    terminal = Terminal(follow(run))
    terminal.wait_for("1 of 2 GPUs free")
    run.event("supervisor_ended", rc=1, message="nobody gave a GPU back")
    assert terminal.end() == 1
    assert "Nobody gave a GPU back." in terminal.shown


def test_ctrl_c_leaves_the_run_going_and_says_how_to_end_it(run: FakeRun) -> None:
    before = sorted(path for path in run.layout.root.rglob("*"))
    terminal = Terminal(follow(run))
    terminal.wait_for("50%")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130
    assert "ptx cancel demo-abc123" in terminal.shown
    assert "ptx logs demo-abc123 --follow" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert sorted(path for path in run.layout.root.rglob("*")) == before


def test_a_bar_costs_no_busy_loop(run: FakeRun) -> None:
    """CPU time, not wall time: a second of watching a silent run takes a fraction of it."""
    terminal = Terminal(follow(run))
    terminal.wait_for("50%")
    clock = f"/proc/{terminal.process.pid}/stat"
    used = [sum(map(int, Path(clock).read_text().rpartition(")")[2].split()[11:13]))]
    time.sleep(1)
    used.append(sum(map(int, Path(clock).read_text().rpartition(")")[2].split()[11:13])))
    run.end(0, 0)
    assert terminal.end() == 0
    assert used[1] - used[0] < 0.5 * os.sysconf("SC_CLK_TCK")
