"""Slices of time, each merged by a process of its own: one output, and one end of it."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.children import children
from support.log_ways import (
    Lines,
    careful,
    contents_of,
    files,
    log,
    logs_in,
    part_sizes,
    parts_of,
    readers,
    sliced,
)

from orchestrator.errors import UserError
from orchestrator.logs.cuts import cuts
from orchestrator.logs.output import Output
from orchestrator.logs.parallel import write_slices
from orchestrator.logs.position import State
from orchestrator.logs.reader import LogReader
from orchestrator.logs.skew import Shift
from orchestrator.logs.text import TextLines


@settings(max_examples=100, deadline=None)
@given(files, st.integers(20, 1000), st.integers(2, 4), part_sizes)
def test_slices_of_time_are_the_same_lines_in_the_same_order(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[Lines, bytes]],
    size: int,
    count: int,
    part: int,
) -> None:
    contents = [log(lines, rank, torn) for rank, (lines, torn) in enumerate(files)]
    logs = logs_in(tmp_path_factory.mktemp("sliced"), contents)
    if cuts(readers(logs), size):
        with parts_of(part):
            assert sliced(logs, size, count) == careful(logs)


@pytest.mark.parametrize("open_for", [5, 3000])
def test_a_line_that_is_open_where_slices_meet_stays_one(tmp_path: Path, open_for: int) -> None:
    """A bar of many pieces, then its end; that of 3,000 lies further back than anybody looks."""
    contents = contents_of(30_000, 3, lambda i: "y" * 90)
    lines = contents[1].splitlines(True)
    for i in range(0, len(lines) - open_for - 1, open_for + 1):
        for at in range(i, i + open_for):
            if at == i or open_for < 10:
                lines[at] = lines[at][:28] + b"O" + lines[at][29:]
            else:
                lines[at] = lines[at][:28] + b"e" + lines[at][29:]
        lines[i + open_for] = lines[i + open_for][:28] + b"o" + lines[i + open_for][29:]
    contents[1] = b"".join(lines)
    logs = logs_in(tmp_path, contents)
    assert sliced(logs, 200_000) == careful(logs)


def test_slices_of_a_clock_that_was_wrong(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, contents_of(6_000, 3, str))
    shift = Shift(75.25)
    assert sliced(logs, 60_000, shift=shift) == careful(logs, shift)


def test_a_log_in_parts_is_not_sliced(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, contents_of(6_000, 2, str))
    (tmp_path / "rank-00001.0001.log").write_bytes(log([(9999, "o", "later")]))
    with tempfile.TemporaryFile() as file:
        output = Output(file.fileno(), "utf-8", "strict")
        lines = TextLines(logs, colour=False)
        assert not write_slices(readers(logs), lines, output, count=2, size=10_000)
        assert file.tell() == 0


def test_what_a_process_cannot_read_is_an_error_of_the_command(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, contents_of(6_000, 3, str))
    made = readers(logs)

    class Gone(LogReader):
        def standing(self, state: State) -> LogReader:
            with suppress(OSError):  # the other process did it
                self.path.unlink()
                self.path.mkdir()
            return super().standing(state)

    made[1] = Gone(logs[1].path, 1)
    with tempfile.TemporaryFile() as file, pytest.raises(UserError, match="rank-00001"):
        output = Output(file.fileno(), "utf-8", "strict")
        write_slices(made, TextLines(logs, colour=False), output, count=2, size=30_000)


def test_an_error_of_ours_in_a_process_is_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = logs_in(tmp_path, contents_of(6_000, 3, str))
    made = readers(logs)

    class Wrong(LogReader):
        def standing(self, state: State) -> LogReader:
            raise ValueError("of ours")

    made[1] = Wrong(logs[1].path, 1)
    with tempfile.TemporaryFile() as file, pytest.raises(ChildProcessError, match="vanished"):
        output = Output(file.fileno())
        write_slices(made, TextLines(logs, colour=False), output, count=2, size=30_000)
    assert "ValueError: of ours" in capfd.readouterr().err


def test_a_log_that_is_deleted_meanwhile_ends_there(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, contents_of(24_000, 3, lambda i: "y" * 50))
    whole = careful(logs)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            lines, output = TextLines(logs, colour=False), Output(writing)
            code = not write_slices(readers(logs), lines, output, count=2, size=300_000)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as file:
        first = [file.readline() for _ in range(10)]  # more follows than the pipe holds
        logs[1].path.unlink()
        shown = [*first, *file]
    assert os.waitpid(pid, 0)[1] == 0
    for rank in range(3):
        mine = [line for line in shown if line.startswith(f"[{rank} ")]
        all_mine = [line for line in whole if line.startswith(f"[{rank} ")]
        assert mine == all_mine[: len(mine)]
        assert (len(mine) < len(all_mine)) is (rank == 1)
    numbers = [int(line.partition("] ")[2].split()[0]) for line in shown]
    assert numbers == sorted(numbers)


def test_a_full_disk_is_an_error_of_the_command(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, contents_of(6_000, 3, str))
    with Path("/dev/full").open("wb", buffering=0) as file:
        output = Output(file.fileno(), "utf-8", "strict")
        with pytest.raises(OSError, match="No space left"):
            write_slices(readers(logs), TextLines(logs, colour=False), output, count=2, size=30_000)


def test_a_reader_that_goes_away_ends_the_processes(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, contents_of(40_000, 2, lambda i: "x" * 90))
    before = children()
    reading, writing = os.pipe()
    os.close(reading)
    output = Output(writing, "utf-8", "strict")
    with pytest.raises(BrokenPipeError):
        write_slices(readers(logs), TextLines(logs, colour=False), output, count=2, size=500_000)
    os.close(writing)
    assert children() == before
