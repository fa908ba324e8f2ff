"""`ptx top` on a terminal: redrawn in place until the run ends, and the terminal as it was."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path

import pytest
from support.made_samples import leave_heartbeat, leave_samples, sample

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import FakeRun, Terminal, ptx

from orchestrator.cli.full_screen import FullScreen

SEQUENCE = re.compile(r"\x1b\[([?\d]*)([A-Za-z])|(\r\n)|(.)", re.DOTALL)
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


def screen_of(written: str, columns: int, rows: int) -> list[str]:
    """What a terminal without wrapping shows of it: behind the last column there is none."""
    cells = [[" "] * columns for _ in range(rows)]
    row = column = 0
    for numbers, letter, newline, text in SEQUENCE.findall(written):
        if newline:
            row, column = min(row + 1, rows - 1), 0
        elif text:
            cells[row][column] = text
            column = min(column + 1, columns - 1)
        elif letter == "H":
            row = column = 0
        elif letter in "KJ":
            assert numbers == ""
            cells[row][column:] = [" "] * (columns - column)
            for below in cells[row + 1 :] if letter == "J" else ():
                below[:] = [" "] * columns
    return ["".join(line).rstrip() for line in cells]


@pytest.mark.parametrize("columns", [15, 16, 80])
def test_a_line_as_wide_as_the_terminal_is_shown_to_its_end(
    columns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    old = ["x" * columns] * 4
    new = ["reported 3s ago", "", "y" * columns, "reported 3s ago"]
    screen = FullScreen()
    screen.show(old)
    screen.show(new)
    assert screen_of(capsys.readouterr().out, columns, 4) == new
    screen.show(old)
    screen.show(new[:1])
    assert screen_of(capsys.readouterr().out, columns, 4) == [new[0], "", "", ""]
    screen.show(old)
    screen.show([])
    assert screen_of(capsys.readouterr().out, columns, 4) == [""] * 4
