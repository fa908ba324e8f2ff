"""The fast path shows what the careful one shows, whatever lies in the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_ways import (
    Lines,
    careful,
    contents_of,
    fast,
    files,
    log,
    logs_in,
    part_sizes,
    parts_of,
    readers,
    sliced,
)

from orchestrator.logs.everything import write_everything
from orchestrator.logs.output import Output
from orchestrator.logs.select import RankLog
from orchestrator.logs.skew import Shift
from orchestrator.logs.source import can_label
from orchestrator.logs.text import TextLines


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


def test_an_encoding_with_other_bytes_for_ascii_is_told() -> None:
    assert Output(1).keeps_ascii and Output(1, "latin-1").keeps_ascii
    for encoding in ("utf-16", "utf-7", "shift_jisx0213", "cp037"):
        assert not Output(1, encoding, "backslashreplace").keeps_ascii
