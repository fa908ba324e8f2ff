"""Choosing files, places in files and times: exact, or refused with what there is."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import NotFound, UserError
from orchestrator.logs.line import STAMP, TEXT, stamp_of
from orchestrator.logs.moment import moment
from orchestrator.logs.numbers import Numbers, spoken
from orchestrator.logs.position import START as BEGIN
from orchestrator.logs.position import Position
from orchestrator.logs.reader import LogReader
from orchestrator.logs.seek import offset_of_last, offset_since
from orchestrator.logs.select import Selection, discover, select
from orchestrator.runs.layout import RunLayout

START = 1_795_000_000


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """Two attempts; the second on two nodes of two ranks."""
    layout = RunLayout(tmp_path / "run-abc123")
    for attempt, node, rank in ((0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 2), (1, 1, 3)):
        path = layout.rank_log(attempt, node, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (layout.node(1, 0) / "launcher.log").touch()
    (layout.node(1, 0) / "rank-00000.exit.json").touch()
    return layout


def chosen(
    run: RunLayout, rank: str | None = None, node: str | None = None, attempt: str | None = None
) -> list[tuple[int, int, int]]:
    logs = select(run, Selection.of(rank, node, attempt))
    assert all(log.path == run.rank_log(log.attempt, log.node, log.rank) for log in logs)
    return [(log.attempt, log.node, log.rank) for log in logs]


def test_the_newest_attempt_is_chosen_unless_another_is_asked_for(run: RunLayout) -> None:
    assert chosen(run) == [(1, 0, 0), (1, 0, 1), (1, 1, 2), (1, 1, 3)]
    assert chosen(run, attempt="0") == [(0, 0, 0)]
    assert chosen(run, attempt="all")[0] == (0, 0, 0)
    assert len(chosen(run, attempt="all")) == 5


def test_ranks_and_nodes_narrow_the_choice(run: RunLayout) -> None:
    assert chosen(run, rank="0,2-3") == [(1, 0, 0), (1, 1, 2), (1, 1, 3)]
    assert chosen(run, node="node-0001") == chosen(run, node="1") == [(1, 1, 2), (1, 1, 3)]
    assert chosen(run, node="node-0000,node-0001") == chosen(run, node="0-1") == chosen(run)
    assert chosen(run, rank="1-900000000") == [(1, 0, 1), (1, 1, 2), (1, 1, 3)]


def ran_on(run: RunLayout, hosts: dict[tuple[int, int], str]) -> None:
    run.events.mkdir()
    for (attempt, node), host in hosts.items():
        path = run.events / f"a{attempt:03d}-node-{node:04d}.jsonl"
        path.write_text(json.dumps({"v": 1, "type": "node_started", "host": host}) + "\nnext\n")


def test_a_host_stands_for_the_node_that_it_was_in_each_attempt(run: RunLayout) -> None:
    ran_on(run, {(0, 0): "gn02.example.org", (1, 0): "gn01", (1, 1): "gn02"})
    assert chosen(run, node="gn02") == chosen(run, node="GN02") == [(1, 1, 2), (1, 1, 3)]
    assert chosen(run, node="gn02", attempt="all") == [(0, 0, 0), (1, 1, 2), (1, 1, 3)]
    assert chosen(run, node="gn02.example.org", attempt="0") == [(0, 0, 0)]
    assert chosen(run, node="gn02,0") == chosen(run)
    with pytest.raises(NotFound, match="a host gn03") as error:
        chosen(run, node="gn03,0")
    assert error.value.hint == "There are logs of gn01 (node 0), gn02 (node 1)."


def test_without_word_of_its_host_a_node_has_its_number_only(run: RunLayout) -> None:
    ran_on(run, {(1, 0): "gn01"})
    (run.events / "a001-node-0001.jsonl").write_text("[1]\n")
    assert chosen(run, node="1") == [(1, 1, 2), (1, 1, 3)]
    with pytest.raises(NotFound) as error:
        chosen(run, node="gn02")
    assert error.value.hint == "There are logs of gn01 (node 0), node 1."


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"rank": "7"}, "no log of rank 7", "rank 0-3"),
        ({"rank": "0,9-12"}, "rank 9 to 12", "rank 0-3"),
        ({"node": "2"}, "no log of node 2", "node 0-1"),
        ({"rank": "0", "node": "1"}, "fits these options", "node 0 has rank 0-1"),
        ({"attempt": "3"}, "Attempt 3", "0-1"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(
    run: RunLayout, options: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(NotFound) as error:
        chosen(run, **options)
    assert message in error.value.message
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize("selection", [("5", None), (None, "2"), ("6-7", "3")])
def test_who_is_yet_to_come_may_be_waited_for_and_nobody_else(
    run: RunLayout, selection: tuple[str | None, str | None]
) -> None:
    wanted = Selection.of(*selection, None)
    assert select(run, wanted, 8, 4) == []
    with pytest.raises(NotFound):
        select(run, wanted)
    with pytest.raises(NotFound):
        select(run, wanted, 4, 2)


def test_a_run_without_logs_has_an_empty_choice(tmp_path: Path) -> None:
    assert select(RunLayout(tmp_path / "none"), Selection.of("5", None, None)) == []


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1;2", "٣", "1" * 40])
def test_a_bad_set_of_ranks_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--rank"):
        Numbers.parse(text, "--rank")


@pytest.mark.parametrize("text", ["-1", "newest", "1.0", "", "9" * 20])
def test_a_bad_attempt_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--attempt"):
        Selection.of(None, None, text)


@given(st.sets(st.integers(0, 60)))
def test_spoken_numbers_parse_back(numbers: set[int]) -> None:
    parsed = Numbers.parse(spoken(numbers), "") if numbers else Numbers(())
    assert {number for number in range(70) if number in parsed} == numbers


def test_foreign_files_in_a_run_folder_are_no_logs(run: RunLayout) -> None:
    before = discover(run)
    (run.attempt(1) / "node-x").mkdir()
    (run.attempt(1).parent / "notes").touch()
    (run.node(1, 0) / "rank-00009.log.swp").touch()
    assert discover(run) == before


def log_of(path: Path, lines: int, width: int = 60) -> list[str]:
    """One line a second."""
    texts = [f"{stamp_of(START + i)} {'oe'[i % 2]} {i} {'x' * width}" for i in range(lines)]
    path.write_text("".join(f"{line}\n" for line in texts))
    return texts


def from_offset(path: Path, offset: Position) -> list[str]:
    reader, lines = LogReader(path, 0, offset), []
    while (more := reader.read()) is not None:
        lines += [entry[2] for entry in more]
    return lines + [entry[2] for entry in reader.finish()]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 60), width=st.sampled_from([1, 5000, 70_000]), lines=st.integers(0, 50))
def test_the_last_lines_are_found_from_the_end(
    tmp_path_factory: pytest.TempPathFactory, count: int, width: int, lines: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "log"
    written = log_of(path, lines, width)
    assert from_offset(path, offset_of_last(path, count)) == written[max(0, lines - count) :]


def test_the_last_line_is_whole_where_it_was_written_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written = log_of(path, 3)
    with path.open("a") as file:
        for i in range(100):
            file.write(f"{stamp_of(START + 10)} O {i % 10}\n")
        file.write(f"{stamp_of(START + 10)} o end\n")
    assert [line[TEXT:] for line in from_offset(path, offset_of_last(path, 1))] == [
        "0123456789" * 10 + "end"
    ]
    assert len(from_offset(path, offset_of_last(path, 2))) == 2
    assert from_offset(path, offset_of_last(path, 9))[:3] == written


def test_the_end_of_a_large_file_is_found_without_reading_it(tmp_path: Path) -> None:
    """The hole in the middle would take minutes to read as lines."""
    path = tmp_path / "log"
    log_of(path, 10)
    with path.open("r+b") as file:
        file.seek(20 << 30)
        file.write(b"\n" + "".join(f"{stamp_of(START + i)} o {i}\n" for i in range(99)).encode())
    assert [line[TEXT:] for line in from_offset(path, offset_of_last(path, 2))] == ["97", "98"]


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    path = tmp_path_factory.mktemp("since") / "log"
    return path, log_of(path, 10_000)


@settings(max_examples=40, deadline=None)
@given(second=st.integers(-5, 12_000))
def test_a_time_is_found_by_bisection(long_log: tuple[Path, list[str]], second: int) -> None:
    path, written = long_log
    stamp, offset = stamp_of(START + second), offset_since(path, stamp_of(START + second))
    lines = from_offset(path, offset)
    assert [line for line in lines if line[:STAMP] >= stamp] == written[max(0, second) :]
    assert len(lines) <= len(written[max(0, second) :]) + 1000
    assert offset_since(path.with_name("missing"), stamp) == BEGIN


def test_since_is_a_duration_or_a_time() -> None:
    now = 1_795_000_000.5
    assert moment("10m", now, "--since") == stamp_of(now - 600)
    assert moment("1.5h", now, "--since") == stamp_of(now - 5400)
    assert moment("2026-11-21T14:30:00+02:00", now, "--since") == "2026-11-21T12:30:00.000000Z"
    assert moment("2026-11-21T12:30:00Z", now, "--since") == "2026-11-21T12:30:00.000000Z"
    assert moment("999999999d", now, "--since") == stamp_of(0)


def test_a_time_of_day_is_the_last_one_that_was() -> None:
    noon = datetime(2026, 11, 21, 12, 0)
    assert moment("11:59", noon.timestamp(), "--since") == stamp_of(noon.timestamp() - 60)
    assert moment("11:59:30.5", noon.timestamp(), "--since") == stamp_of(noon.timestamp() - 29.5)
    yesterday = datetime(2026, 11, 20, 12, 1)
    assert moment("12:01", noon.timestamp(), "--until") == stamp_of(yesterday.timestamp())


@pytest.mark.parametrize(
    "text", ["25:00", "9:5", "", "10", "10 parsecs", "yesterday", "-5m", "2026-13-01"]
)
def test_a_bad_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--since"):
        moment(text, 0.0, "--since")
