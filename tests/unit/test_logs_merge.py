"""Reading and merging rank logs: nothing lost, nothing moved, whatever the files look like."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.agent.stamp import Stamper
from orchestrator.logs.line import MARK, STAMP, TEXT, Entry, parse, parts, stamp_of
from orchestrator.logs.merge import merge
from orchestrator.logs.pieces import LONGEST
from orchestrator.logs.reader import LogReader

START = 1_795_000_000


def stamped(second: float, text: str, mark: str = "o") -> str:
    return f"{stamp_of(START + second)} {mark} {text}"


def write(path: Path, lines: Sequence[str], end: str = "\n") -> Path:
    path.write_text("".join(f"{line}\n" for line in lines[:-1]) + lines[-1] + end, newline="")
    return path


def read_all(*paths: Path, budget: int = 4096) -> list[Entry]:
    readers = [LogReader(path, source) for source, path in enumerate(paths)]
    return [entry for batch in merge(readers, budget=budget) for entry in batch]


def texts(entries: Sequence[Entry]) -> list[str]:
    return [entry[2][TEXT:] for entry in entries]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 120), min_size=1, max_size=6),
    spread=st.integers(1, 50),
    width=st.integers(0, 900),
    seed=st.integers(0, 2**32),
)
def test_any_split_over_files_merges_to_the_sorted_lines(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    spread: int,
    width: int,
    seed: int,
) -> None:
    """Few distinct times and lines wider than a block's share: ties and refills in every way."""
    folder, chance = tmp_path_factory.mktemp("merge"), random.Random(seed)  # noqa: S311 - test data
    files: list[list[str]] = []
    for number, count in enumerate(counts):
        times = sorted(chance.randrange(spread) for _ in range(count))
        files.append(
            [
                stamped(t, f"{number}.{i} " + "x" * width, chance.choice("oe"))
                for i, t in enumerate(times)
            ]
        )
    paths = []
    for number, lines in enumerate(files):
        path = folder / f"{number}.log"
        path.write_text("".join(f"{line}\n" for line in lines))
        paths.append(path)
    merged = read_all(*paths, budget=1)
    assert [entry[0] for entry in merged] == sorted(line[:STAMP] for own in files for line in own)
    for number, lines in enumerate(files):
        assert [entry[2] for entry in merged if entry[1] == number] == lines


def test_a_large_merge_agrees_with_gnu_sort(tmp_path: Path) -> None:
    """Distinct stamps, so that there is one right order; 40 files of many blocks each."""
    chance = random.Random(7)  # noqa: S311 - test data
    moments = list(range(40_000))
    chance.shuffle(moments)
    paths = [
        write(
            tmp_path / f"{number}.log",
            [stamped(t / 1000, "line " * 20) for t in sorted(moments[number::40])],
        )
        for number in range(40)
    ]
    expected = subprocess.run(
        ["sort", "-m", *map(str, paths)], env={"LC_ALL": "C"}, capture_output=True, check=True
    ).stdout.decode()
    merged = read_all(*paths, budget=64 * 1024)
    assert "".join(f"{entry[2]}\n" for entry in merged) == expected


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=600),
    cuts=st.lists(st.integers(1, 80), max_size=40),
    size=st.integers(31, 300),
)
def test_lines_torn_by_the_stamper_come_back_whole(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int], size: int
) -> None:
    """What the shim cut into pieces reads as the lines that the rank wrote."""
    data = data.replace(b"\r", b"")
    stamper, log, rest = Stamper(b"o"), b"", data
    for cut in cuts:
        log += b"".join(stamper.feed(rest[:cut], stamp_of(START).encode()))
        log += b"".join(stamper.flush(stamp_of(START).encode()))
        rest = rest[cut:]
    log += b"".join(stamper.feed(rest, stamp_of(START).encode()))
    log += b"".join(stamper.flush(stamp_of(START).encode()))
    path = tmp_path_factory.mktemp("torn") / "rank.log"
    path.write_bytes(log)
    reader, entries = LogReader(path, 0), []
    while (more := reader.read(size)) is not None:
        entries += more
    entries += reader.finish()
    lines = [entry[2][TEXT:].encode("utf-8", "surrogateescape") for entry in entries]
    assert b"\n".join(lines) == data.removesuffix(b"\n")
    if entries:
        assert parts(entries[-1]).complete == data.endswith(b"\n")


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 200), other=st.binary(max_size=60))
def test_a_file_cut_anywhere_loses_no_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int, other: bytes
) -> None:
    lines = [stamped(i, f"line {i}") for i in range(5)]
    whole = "".join(f"{line}\n" for line in lines).encode()
    path = tmp_path_factory.mktemp("cut") / "rank.log"
    path.write_bytes(whole[:cut] + other)
    entries = read_all(path)
    kept = whole[:cut].count(b"\n")
    assert [entry[2] for entry in entries[:kept]] == lines[:kept]
    assert [entry[0] for entry in entries] == sorted(entry[0] for entry in entries)


def test_a_line_without_a_stamp_stays_with_the_line_before_it(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [stamped(1, "a1"), "foreign", "", stamped(5, "a5")])
    second = write(tmp_path / "b", [stamped(2, "b2"), stamped(3, "b3")])
    entries = read_all(first, second)
    assert texts(entries) == ["a1", "foreign", "", "b2", "b3", "a5"]
    assert [parts(entry).stream for entry in entries[:3]] == ["stdout", None, None]


def test_a_torn_last_line_is_shown_as_incomplete(tmp_path: Path) -> None:
    entries = read_all(write(tmp_path / "a", [stamped(1, "whole"), stamped(2, "hal")], end=""))
    assert [(parts(e).text, parts(e).complete) for e in entries] == [
        ("whole", True),
        ("hal", False),
    ]


def test_a_clock_that_steps_back_moves_no_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [stamped(9, "first"), stamped(2, "second"), stamped(10, "third")])
    assert texts(read_all(path, write(tmp_path / "b", [stamped(5, "other")]))) == [
        "other", "first", "second", "third",
    ]  # fmt: skip


def test_pieces_of_both_streams_join_each_with_its_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a",
        [
            stamped(1, "out be", "O"), stamped(2, "err be", "E"), stamped(3, "gun"),
            stamped(4, "gun", "e"), stamped(5, "left", "O"),
        ],
    )  # fmt: skip
    found = [parts(entry) for entry in read_all(path)]
    assert [(line.stream, line.text, line.complete) for line in found] == [
        ("stdout", "out begun", True),
        ("stderr", "err begun", True),
        ("stdout", "left", False),
    ]


def test_a_progress_bar_is_its_last_state(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a",
        [
            stamped(1, "\r 10%\r 20%", "E"), stamped(2, "\r 90%", "E"),
            stamped(3, "\r100%", "e"), stamped(4, "crlf\r"), stamped(5, "\rbar\r"),
        ],
    )  # fmt: skip
    assert texts(read_all(path)) == ["100%", "crlf", "bar"]


def test_an_hour_of_a_bar_is_not_kept_in_memory(tmp_path: Path) -> None:
    state = "\r" + "=" * 1000
    path = write(tmp_path / "a", [stamped(i, state, "E") for i in range(20_000)])
    reader = LogReader(path, 0)
    while reader.read() is not None:
        (entry,) = reader.states()
        assert sum(len(text) for _, text in reader.state.held) < 128 * 1024
    assert entry[2][TEXT:] == "=" * 1000


def test_a_line_longer_than_any_block_is_read(tmp_path: Path) -> None:
    text = "x" * (LONGEST // 2)
    path = write(tmp_path / "a", [stamped(1, "before"), stamped(2, text), stamped(3, "after")])
    assert texts(read_all(path)) == ["before", text, "after"]


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(stamped(1, "").encode() + b"\xff\xfe\x00\x80\n")
    (entry,) = read_all(path)
    assert entry[2][TEXT:].encode("utf-8", "surrogateescape") == b"\xff\xfe\x00\x80"


def test_a_missing_and_an_empty_file_are_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read_all(tmp_path / "empty", tmp_path / "missing") == []


def test_hundreds_of_files_need_one_descriptor(tmp_path: Path, checkout: Path) -> None:
    paths = [write(tmp_path / str(i), [stamped(i, str(i))]) for i in range(400)]
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n"
        "from pathlib import Path\n"
        "from orchestrator.logs.merge import merge\n"
        "from orchestrator.logs.reader import LogReader\n"
        "readers = [LogReader(Path(path), i) for i, path in enumerate(sys.argv[1:])]\n"
        "print(sum(len(batch) for batch in merge(readers)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        cwd=checkout,
    )
    assert (done.stdout, done.stderr) == ("400\n", "")


@pytest.mark.parametrize("line", ["", "text", "2026-11-21T00:47:11.123456Z x text", "2026-11-21 o"])
def test_a_line_without_stamp_and_mark_is_not_parsed(line: str) -> None:
    assert parse(line) is None


def test_a_stamped_line_has_its_parts_at_fixed_places() -> None:
    line = stamped(0, "text", "E")
    parsed = parse(line)
    assert parsed is not None
    assert (parsed.time, parsed.stream, parsed.text, parsed.complete) == (
        line[:STAMP], "stderr", "text", False,
    )  # fmt: skip
    assert (line[MARK], line[TEXT:]) == ("E", "text")
