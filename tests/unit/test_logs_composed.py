"""The fast path shows what the careful one shows, whatever lies in the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.logs.composed import FileSource, Source, merge_composed, shown
from orchestrator.logs.line import stamp_of
from orchestrator.logs.merge import merge
from orchestrator.logs.parallel import spread
from orchestrator.logs.reader import LogReader
from orchestrator.logs.select import RankLog
from orchestrator.logs.text import TextLines

START = 1_795_000_000

line = st.one_of(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from("oeoeOE"),
        st.sampled_from(["step 1", "", "Z o inside", "\x1b[2Jbar", "\rbar", "\x1f", "\u00e9", "a"]),
    ),
    st.sampled_from([b"", b"foreign", b"\xff\xfe", b"2026-11-21T00:47:11.123456Z x no", b"Z o "]),
)  # fmt: skip


def log(lines: list[tuple[int, str, str] | bytes]) -> bytes:
    data, at = b"", 0
    for one in lines:
        if isinstance(one, bytes):
            data += one + b"\n"
        else:
            at += one[0]
            data += f"{stamp_of(START + at)} {one[1]} {one[2]}\n".encode()
    return data


def logs_in(folder: Path, contents: list[bytes]) -> list[RankLog]:
    found = []
    for rank, data in enumerate(contents):
        path = folder / f"rank-{rank:05d}.log"
        path.write_bytes(data)
        found.append(RankLog(0, rank // 2, rank, path))
    return found


def careful(logs: list[RankLog]) -> list[str]:
    lines = TextLines(logs, colour=False)
    readers = [LogReader(log.path, i) for i, log in enumerate(logs)]
    return "".join(lines.render(batch) for batch in merge(readers, budget=1)).splitlines(True)


def sources(logs: list[RankLog]) -> list[Source]:
    lines = TextLines(logs, colour=False)
    return [FileSource(LogReader(log.path, i), lines) for i, log in enumerate(logs)]


def fast(logs: list[RankLog]) -> list[str]:
    return "".join(map(shown, merge_composed(sources(logs), budget=1))).splitlines(True)


def parallel(logs: list[RankLog]) -> list[str]:
    with spread(sources(logs)) as children:
        return "".join(map(shown, merge_composed(children, budget=1))).splitlines(True)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(line, max_size=30), min_size=1, max_size=4))
def test_the_same_lines_each_ranks_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[int, str, str] | bytes]]
) -> None:
    logs = logs_in(tmp_path_factory.mktemp("composed"), [log(lines) for lines in files])
    expected, found = careful(logs), fast(logs)
    assert sorted(found) == sorted(expected)
    for one in logs:
        own = f"[{one.rank} node-"
        assert [x for x in found if x.startswith(own)] == [x for x in expected if x.startswith(own)]


@pytest.mark.parametrize("way", [fast, parallel])
def test_many_blocks_come_in_time_order(
    tmp_path: Path, way: Callable[[list[RankLog]], list[str]]
) -> None:
    """Lines whose times are all different have one right order; the numbers are it."""
    count, files = 24_000, 7
    contents = [
        "".join(
            f"{stamp_of(START + i / 100)} {'oe'[i % 3 == 0]} {i} {'y' * (i % 90)}\n"
            for i in range(rank, count, files)
        ).encode()
        for rank in range(files)
    ]
    logs = logs_in(tmp_path, contents)
    found = way(logs)
    assert [int(x.partition("] ")[2].split()[0]) for x in found] == list(range(count))
    assert found == careful(logs)


def test_what_a_child_cannot_read_is_the_parents_error(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, [log([(1, "o", "a")])] * 3)
    logs[1].path.unlink()
    logs[1].path.mkdir()
    with pytest.raises(UserError, match="rank-00001"):
        parallel(logs)


def test_a_reader_that_goes_away_ends_the_children(tmp_path: Path) -> None:
    data = "".join(f"{stamp_of(START + i)} o {'x' * 100}\n" for i in range(40_000)).encode()
    logs = logs_in(tmp_path, [data] * 2)
    with spread(sources(logs)) as children:
        next(merge_composed(children, budget=1))
    # Leaving it waits for them: that it was left is the test.
