"""The fast path shows what the careful one shows, whatever lies in the files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.children import children

from orchestrator.errors import UserError
from orchestrator.logs import composed
from orchestrator.logs.columns import columns_of, key_of
from orchestrator.logs.composed import merge_composed
from orchestrator.logs.cuts import cuts
from orchestrator.logs.everything import write_everything
from orchestrator.logs.line import stamp_of
from orchestrator.logs.merge import merge
from orchestrator.logs.output import Output
from orchestrator.logs.parallel import write_slices
from orchestrator.logs.position import State
from orchestrator.logs.reader import LogReader
from orchestrator.logs.select import RankLog
from orchestrator.logs.skew import Shift
from orchestrator.logs.source import FileSource, can_label
from orchestrator.logs.text import TextLines

START = 1_795_000_000

line = st.one_of(
    st.tuples(
        st.integers(-2, 3),
        st.sampled_from("oeoeOE"),
        st.sampled_from(
            ["step 1", "", "Z o inside", "Z e ", "\x1b[2Jbar", "\rbar", "\x1f", "\u00e9", "a"]
        ),
    ),
    st.sampled_from(
        [
            b"",
            b"foreign",
            b"\xff\xfe",
            b"2026-11-21T00:47:11.123456Z x no",
            b"Z o ",
            # A reader that is in a hurry takes these for stamped.
            b"2026-11-20T00:47:11.12345xZ e seems",
            b"2026-11-20 00:47:11.123456Z o seems",
            b"2\xc3\xa926-11-20T00:47:11.12345Z o seems",
            b"2\xff26-11-20T00:47:11.123456Z o seems",
        ]
    ),
)  # fmt: skip
Lines = list[tuple[int, str, str] | bytes]


def log(lines: Lines, rank: int = 0, torn: bytes = b"") -> bytes:
    """Of lines with one time, those of the lower rank come first."""
    data, at = b"", 0
    for one in lines:
        if isinstance(one, bytes):
            data += one + b"\n"
        else:
            at += one[0]
            data += f"{stamp_of(START + at + rank // 2 / 1000)} {one[1]} {one[2]}\n".encode()
    return data + torn


def logs_in(folder: Path, contents: list[bytes], *, parts: int = 1) -> list[RankLog]:
    found = []
    for rank, data in enumerate(contents):
        path = folder / f"rank-{rank:05d}.log"
        lines = data.splitlines(True)
        size = -(-len(lines) // parts)
        path.write_bytes(b"".join(lines[:size]))
        for part in range(1, parts):
            more = path.with_name(f"rank-{rank:05d}.{part:04d}.log")
            more.write_bytes(b"".join(lines[part * size : (part + 1) * size]))
        found.append(RankLog(0, rank // 2, rank, path))
    return found


def careful(logs: list[RankLog], shift: Shift | None = None) -> list[str]:
    lines = TextLines(logs, colour=False)
    found = merge(readers(logs, shift), budget=1)
    return "".join(lines.render(batch) for batch in found).splitlines(True)


def readers(logs: list[RankLog], shift: Shift | None = None) -> list[LogReader]:
    return [LogReader(log.path, i, shift=shift) for i, log in enumerate(logs)]


def fast(logs: list[RankLog], shift: Shift | None = None) -> list[str]:
    lines = TextLines(logs, colour=False)
    sources = [FileSource(one, lines, Output(1)) for one in readers(logs, shift)]
    found = merge_composed(sources, budget=1)
    return b"".join(map(bytes, found)).decode().splitlines(True)


def sliced(
    logs: list[RankLog], size: int = 150_000, count: int = 3, shift: Shift | None = None
) -> list[str]:
    """Written by several processes."""
    with tempfile.TemporaryFile() as file:
        output = Output(file.fileno(), "utf-8", "strict")
        lines = TextLines(logs, colour=False)
        done = write_slices(readers(logs, shift), lines, output, count=count, size=size)
        assert done
        file.seek(0)
        return file.read().decode().splitlines(True)


@contextmanager
def parts_of(size: int) -> Iterator[None]:
    """Logs are read in parts of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composed, "_SMALLEST", size)
        patch.setattr(composed, "_LARGEST", size)
        yield


part_sizes = st.sampled_from([1, 40, 100, 300, 8192])
files = st.lists(
    st.tuples(st.lists(line, max_size=30), st.sampled_from([b"", b"torn"])), min_size=1, max_size=4
)


@settings(max_examples=150, deadline=None)
@given(files, part_sizes, st.sampled_from([1, 1, 3]), st.sampled_from([None, Shift(75.25)]))
def test_the_same_lines_in_the_same_order(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[Lines, bytes]],
    part: int,
    parts: int,
    shift: Shift | None,
) -> None:
    contents = [log(lines, rank, torn) for rank, (lines, torn) in enumerate(files)]
    logs = logs_in(tmp_path_factory.mktemp("composed"), contents, parts=parts)
    with parts_of(part):
        assert fast(logs, shift) == careful(logs, shift)


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


stamps = st.datetimes(datetime(1970, 1, 1), datetime(2097, 12, 31)).map(
    lambda time: f"{time.isoformat(timespec='microseconds')}Z"
)


@given(st.lists(stamps, min_size=2, max_size=6))
def test_keys_of_times_compare_as_the_times_do(times: list[str]) -> None:
    times += [f"{times[0][:-2]}{digit}Z" for digit in "059"]
    assert sorted(times, key=key_of) == sorted(times)
    assert len({key_of(time) for time in times}) == len(set(times))
    found = columns_of("".join(f"{time} o x\n" for time in sorted(times)).encode())
    assert found is not None and found.keys.tolist() == [key_of(time) for time in sorted(times)]


@pytest.mark.parametrize(
    "data",
    [
        b"2026-11-21T00:47:11.123456Z o torn",
        b"2026-11-21T00:47:11.123456Z o\n",
        b"2026-11-21T00:47:11.12345xZ o x\n",
        b"2026-11-21 00:47:11.123456Z o x\n",
        b"2026-11-21T00:47:11.123456Z O a piece\n",
        b"2026-11-21T00:47:11.123456Z l x\n",
        b"2026-11-21T00:47:11.123456Z o a\x1b[2J\n",
        b"2026-11-21T00:47:11.123456Z o \xff\n",
        b"2026-11-21T00:47:11.123456Z o \x7f\n",
        b"2026-11-21T00:47:11.123456Z o x\n\n",
        b"2026-11-21T00:47:11.123456Z o x\n\n\t\n",
        b"2026-11-21T00:47:11.123456Z o x\n2026-11-21T00:47:11.123455Z o x\n",
        b"0000-00-00T00:00:00.000000Z o x\n",
        b"9999-99-99T99:99:99.999999Z o x\n",
        b"",
    ],
)
def test_a_block_with_a_line_that_is_not_shown_as_it_stands_has_no_columns(data: bytes) -> None:
    good = b"2026-11-21T00:47:10.000000Z o x\ty\n"
    assert columns_of(good) is not None
    assert columns_of(good + data if data else data) is None


def contents_of(
    count: int, files: int, text: Callable[[int], str], seconds: float = 0.01
) -> list[bytes]:
    return [
        "".join(
            f"{stamp_of(START + i * seconds)} {'oe'[i % 3 == 0]} {i} {text(i)}\n"
            for i in range(rank, count, files)
        ).encode()
        for rank in range(files)
    ]


@pytest.mark.parametrize("way", [fast, sliced])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (lambda i: "y" * (i % 90), 0.01),
        (lambda i: "y" * (i % 90), 7777),  # days, and years
        (lambda i: "y" * (9000 if i % 500 == 0 else i % 90), 0.01),  # longer than a row can be
        (lambda i: "y" * (900 if i % 500 == 0 else 1), 0.01),  # rows would be sparse
        (lambda i: "\u00e9" if i % 5000 == 0 else "y" * 40, 0.01),  # a block here and there
    ],
    ids=["even", "days", "long", "sparse", "accents"],
)
def test_many_blocks_come_in_time_order(
    tmp_path: Path,
    way: Callable[[list[RankLog]], list[str]],
    text: Callable[[int], str],
    seconds: float,
) -> None:
    """Lines whose times are all different have one right order; the numbers are it."""
    logs = logs_in(tmp_path, contents_of(24_000, 7, text, seconds))
    found = way(logs)
    assert [int(x.partition("] ")[2].split()[0]) for x in found] == list(range(24_000))
    assert found == careful(logs)


@pytest.mark.parametrize("way", [fast, sliced])
def test_lines_of_megabytes_are_cut_where_they_always_are(
    tmp_path: Path, way: Callable[[list[RankLog]], list[str]]
) -> None:
    contents = contents_of(400, 4, lambda i: "y" * (5_000_000 if i == 200 else 2000))
    logs = logs_in(tmp_path, contents)
    assert way(logs) == careful(logs)


def test_times_that_can_only_be_wrong_lose_no_line(tmp_path: Path) -> None:
    years = ["0001", "1969", "1970", "2026", "2097", "2098", "9999"]
    data = [
        "".join(f"{year}-99-99T99:99:99.99999{rank}Z o {year}\n" for year in chosen).encode()
        for rank, chosen in enumerate([years, years[::-1], years[3:] + years[:3]])
    ]
    logs = logs_in(tmp_path, data)
    shown = fast(logs)
    assert sorted(shown) == sorted(careful(logs))
    for rank, lines in enumerate(data):
        mine = [line.split()[-1] for line in shown if line.startswith(f"[{rank} ")]
        assert mine == [line.split()[-1].decode() for line in lines.splitlines()]


def test_labels_that_are_coloured_or_long_are_not_written_over_times(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, [b"", b""])
    assert can_label(TextLines(logs, colour=False), 2)
    assert not can_label(TextLines(logs, colour=True), 2)
    far = RankLog(10**12, 10**6, 10**6, logs[0].path)
    assert not can_label(TextLines([*logs, far], colour=False), 3)
    with Path("/dev/full").open("wb", buffering=0) as file:
        output = Output(file.fileno())
        assert not write_everything(readers(logs), TextLines(logs, colour=True), output)


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


def test_an_encoding_with_other_bytes_for_ascii_is_told() -> None:
    assert Output(1).keeps_ascii and Output(1, "latin-1").keeps_ascii
    for encoding in ("utf-16", "utf-7", "shift_jisx0213", "cp037"):
        assert not Output(1, encoding, "backslashreplace").keeps_ascii


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
