"""`ptx top` on a terminal: redrawn in place until the run ends, and the terminal as it was."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from support.made_samples import leave_heartbeat, leave_samples, sample

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import FakeRun, Terminal, ptx

OPENED, CLOSED = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    run = FakeRun.create(tmp_path)
    run.start()
    leave_heartbeat(run.layout, time.time())
    leave_samples(run.layout, [sample(time.time(), ranks=[0, 1])])
    run.metrics(1, 10, 2.0)
    return run


@pytest.mark.slow
def test_it_follows_the_run_and_ends_with_it(run: FakeRun) -> None:
    terminal = Terminal(ptx("top", run.layout.root), columns=70)
    terminal.wait_for("step 1/10")
    run.metrics(5, 10, 1.5)
    terminal.wait_for("step 5/10")
    run.metrics(10, 10, 1.0)
    run.end(0, 0)
    assert terminal.end() == 0
    shown = terminal.shown
    assert shown.count(OPENED) == shown.count(CLOSED) == 1
    live, _, after = shown.partition(CLOSED)
    assert "\x1b[?25h" in live and "\x1b[?7h" in live  # the cursor is back, and lines wrap
    assert "\x1b[H" in live and "\x1b[H" not in after
    assert f"{run.layout.run_id} completed" in after
    assert "after step 10/10." in after


def test_ctrl_c_ends_the_showing_alone(run: FakeRun) -> None:
    terminal = Terminal(ptx("top", run.layout.root))
    terminal.wait_for("RANK")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "goes on without you" in terminal.shown.partition(CLOSED)[2]


def test_a_terminal_that_cannot_redraw_gets_one_table(run: FakeRun) -> None:
    for terminal in (
        Terminal(ptx("top", run.layout.root), TERM="dumb"),
        Terminal(ptx("top", run.layout.root, "--once")),
    ):
        assert terminal.end() == 0
        assert "step 1/10" in terminal.shown
        assert OPENED not in terminal.shown and "\x1b[H" not in terminal.shown
