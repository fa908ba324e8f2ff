"""Following live runs, with real processes that write."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.agent.log_limits import Limits
from orchestrator.agent.rank_log import RankLog
from orchestrator.logs import follow as module
from orchestrator.logs import patrol
from orchestrator.logs.follow import Follower
from orchestrator.logs.line import TEXT, Entry, stamp_of
from orchestrator.logs.pace import SOONEST, Pace
from orchestrator.logs.select import Selection
from orchestrator.logs.stored import Stored
from orchestrator.runs.layout import RunLayout

WRITER = """
import sys, time
from datetime import datetime, UTC
path, name, count, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with open(path, "a") as file:
    for i in range(count):
        line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ} o {name} {i} " + "x" * 50 + chr(10)
        file.write(line[:40])
        file.flush()  # torn: the reader must wait for the rest
        file.write(line[40:])
        file.flush()
        time.sleep(pause)
"""
PATIENCE = 60.0
"""Seconds after which a follower that misses something fails its test."""


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path / "run-abc123")


@contextmanager
def writer(
    layout: RunLayout, attempt: int, node: int, rank: int, count: int, pause: float
) -> Iterator[subprocess.Popen[bytes]]:
    path = layout.rank_log(attempt, node, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-c", WRITER, str(path), f"{attempt}.{rank}", str(count), str(pause)]
    process = subprocess.Popen(argv)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def append(layout: RunLayout, rank: int, text: str, attempt: int = 0) -> None:
    path = layout.rank_log(attempt, 0, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def line(text: str, mark: str = "o") -> str:
    return f"{stamp_of(time.time())} {mark} {text}\n"


class Run:
    """A run that is over when the test says so, or when it takes too long."""

    def __init__(self) -> None:
        self.over = False
        self._deadline = time.monotonic() + PATIENCE

    def end(self) -> str | None:
        assert time.monotonic() < self._deadline, "the follower missed something"
        return "completed" if self.over else None


def words(entries: list[Entry]) -> list[str]:
    return [" ".join(entry[2][TEXT:].split()[:2]) for entry in entries]


def test_every_line_of_live_writers_comes_once_and_in_order(layout: RunLayout) -> None:
    """A rank appears later, then an attempt; the last lines come with the end of the run."""
    run, got = Run(), []
    follower = Follower(layout, Selection())
    with writer(layout, 0, 0, 0, 150, 0.005) as first, writer(layout, 0, 1, 1, 150, 0.005):
        for batch in follower.history():
            got += batch
        late = False
        for batch in follower.follow(run.end):
            got += batch
            if not late and len(got) > 20:
                late = True
                with (
                    writer(layout, 0, 2, 2, 100, 0.0) as third,
                    writer(layout, 1, 0, 0, 100, 0.0) as again,
                ):
                    third.wait()
                    again.wait()
            if late and not run.over and first.poll() is not None:
                append(layout, 0, "torn at the end")
                run.over = all(words(got).count(f"0.{rank} 149") for rank in (0, 1))
    assert late
    for name, count in (("0.0", 150), ("0.1", 150), ("0.2", 100), ("1.0", 100)):
        assert [w for w in words(got) if w.startswith(name)] == [
            f"{name} {i}" for i in range(count)
        ]
    assert {(log.attempt, log.rank) for log in follower.logs} == {(0, 0), (0, 1), (0, 2), (1, 0)}


def test_what_was_written_before_the_end_is_drained(layout: RunLayout) -> None:
    """The run is over at the first look: everything is still shown, new folders included."""
    run, got = Run(), []
    follower = Follower(layout, Selection())
    assert list(follower.history()) == []
    for rank in range(3):
        append(layout, rank, "".join(line(f"r{rank} {i}") for i in range(5000)))
    append(layout, 0, line("open ended", "O"))
    run.over = True
    for batch in follower.follow(run.end):
        got += batch
    assert len(got) == 15_001
    assert [entry[0] for entry in got] == sorted(entry[0] for entry in got)
    assert "open ended" in words(got)


def test_a_late_line_with_an_earlier_stamp_comes_first(layout: RunLayout) -> None:
    early, run, got = line("early"), Run(), []
    append(layout, 0, line("late"))
    append(layout, 1, "")
    follower = Follower(layout, Selection())
    for number, batch in enumerate(follower.follow(run.end)):
        if number == 0:
            append(layout, 1, early)
        got += batch
        run.over = len(got) == 2
    assert words(got) == ["early", "late"]


def test_only_the_chosen_ranks_are_followed(layout: RunLayout) -> None:
    for rank in range(3):
        append(layout, rank, line(f"rank {rank}"))
    run = Run()
    run.over = True
    follower = Follower(layout, Selection.of("1", None, None))
    assert [w for batch in follower.follow(run.end) for w in words(batch)] == ["rank 1"]


def test_an_old_attempt_that_was_asked_for_is_the_only_one(layout: RunLayout) -> None:
    for attempt in (0, 1):
        append(layout, 0, line(f"attempt {attempt}"), attempt)
    run = Run()
    run.over = True
    follower = Follower(layout, Selection.of(None, None, "0"))
    assert [w for batch in follower.follow(run.end) for w in words(batch)] == ["attempt 0"]


def test_following_goes_on_after_the_history_without_a_gap_or_a_repeat(layout: RunLayout) -> None:
    half = line("second one")
    append(layout, 0, line("first one") + half[:35])
    run, got = Run(), []
    follower = Follower(layout, Selection())
    for batch in follower.history():
        got += batch
    assert words(got) == ["first one"]
    append(layout, 0, half[35:])
    for batch in follower.follow(run.end):
        got += batch
        run.over = len(got) == 2
    assert words(got) == ["first one", "second one"]


def test_a_bar_that_never_ends_its_line_is_seen(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BAR", 0.3)
    append(layout, 0, line("\rbar 1", "E") + line("\rbar 2", "E"))
    run, got = Run(), []
    follower = Follower(layout, Selection())
    for batch in follower.follow(run.end):
        got += batch
        if words(got) == ["bar 2"]:
            append(layout, 0, line("\rbar 3", "E"))
        run.over = "bar 3" in words(got)
    assert words(got)[:2] == ["bar 2", "bar 3"]


def test_a_state_that_was_shown_is_not_shown_again_at_the_end(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BAR", 0.3)
    append(layout, 0, line("\rbar 1", "E") + "prompt> ")
    run, got = Run(), []
    for batch in Follower(layout, Selection()).follow(run.end):
        got += batch
        run.over = bool(got)
    assert words(got) == sorted(set(words(got))), "each once"
    assert "bar 1" in words(got)


def test_logs_of_attempts_that_are_over_rest_and_are_read_to_their_ends_all_the_same(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 0.3)
    append(layout, 0, line("old"), attempt=0)
    run, got = Run(), []
    follower = Follower(layout, Selection.of(None, None, "all"))
    rests, ends = 0.0, 0.0
    for batch in follower.follow(run.end):
        got += batch
        now = time.monotonic()
        if words(got) == ["old"] and not rests:
            append(layout, 0, line("new"), attempt=1)
            rests = now + 5
        elif words(got) == ["old", "new"] and not ends and now > rests:
            append(layout, 0, line("late"), attempt=0)  # of ranks that outlived their agent
            append(layout, 1, line("later rank"), attempt=0)
            ends = now + 4
        elif ends and now > ends and not run.over:
            assert words(got) == ["old", "new"], "an attempt that is over was looked at"
            run.over = True
    assert words(got) == ["old", "new", "late", "later rank"]


def test_the_errors_of_a_failed_attempt_are_shown_before_its_logs_rest_however_slow_looks_are(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round over all logs takes much longer than they are followed after the next attempt's
    beginning."""
    monkeypatch.setattr(module, "REST", 0.1)
    monkeypatch.setattr(patrol, "HOT", 0.0)
    pread = Stored._pread

    def slow(file: Stored, size: int, offset: int) -> bytes | None:
        time.sleep(0.005)
        return pread(file, size, offset)

    for rank in range(20):
        append(layout, rank, line(f"hello {rank}"))
    run, got = Run(), []
    follower = Follower(layout, Selection())
    for batch in follower.history():
        got += batch
    monkeypatch.setattr(Stored, "_pread", slow)
    for number, batch in enumerate(follower.follow(run.end)):
        got += batch
        if number == 3:
            for rank in range(20):
                append(layout, rank, "".join(line(f"error {rank}", "e") for _ in range(9)))
            append(layout, 0, line("attempt 1"), attempt=1)
        run.over = len(got) == 20 + 9 * 20 + 1  # not before all was seen
    assert Counter(words(got)) == {"attempt 1": 1} | {
        f"{word} {rank}": count
        for word, count in (("hello", 1), ("error", 9))
        for rank in range(20)
    }


def test_looks_become_rare_where_nothing_changes() -> None:
    pace = Pace(2.0, changed=0.0)
    pace.looked(1.0, changed=True)
    assert pace.due == 1.0 + SOONEST
    pace.looked(9.0, changed=False)
    assert pace.due == 9.5
    pace.looked(1000.0, changed=False)
    assert pace.due == 1002.0


class Files:
    """Each look takes a millisecond of a clock of its own, as a question to a file server may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.looks: list[int] = []
        self.growing: set[int] = set()
        monkeypatch.setattr(patrol.time, "monotonic", lambda: self.now)

    def look(self, file: list[int], _: float) -> bool:
        self.now += 0.001
        self.looks.append(file[0])
        return file[0] in self.growing

    def turns(self, round_: patrol.Patrol[list[int]], seconds: float) -> None:
        begun = self.now
        while self.now < begun + seconds:
            round_.turn()
            self.now += 0.1

    def resting(self) -> patrol.Patrol[list[int]]:
        """Of 300 files, none of which has grown for long; nobody has counted looks yet."""
        round_ = patrol.Patrol(self.look)
        for number in range(300):
            round_.add([number])
        self.turns(round_, 2 * patrol.HOT)
        self.looks.clear()
        return round_


def test_resting_files_take_a_small_share_of_the_time_and_all_get_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Files(monkeypatch)
    round_ = files.resting()
    files.growing = {7}
    files.turns(round_, 30)
    assert set(files.looks) == set(range(300))
    resting = [number for number in files.looks if number != 7]
    assert len(resting) * 0.001 < 2 * patrol.SHARE * 30
    assert files.looks.count(7) > 20 / 0.11  # at each turn, once it was seen to grow


def test_a_file_is_looked_at_to_its_end_before_it_retires_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Files(monkeypatch)
    round_ = files.resting()
    files.growing = {7}
    round_.retire(lambda file: file[0] < 200)
    files.turns(round_, 30)
    retired = set(range(200)) - {7}
    assert all(files.looks.count(number) == 1 for number in retired)
    assert {file[0] for file in round_.retired} == retired
    files.growing = set()
    round_.turn()
    assert round_.retired[-1] == [7]


def test_the_parts_of_a_log_that_rotates_while_it_is_followed_come_one_after_another(
    layout: RunLayout,
) -> None:
    log = RankLog(str(layout.rank_log(0, 0, 0)), 0o600, Limits(part=2000))
    layout.node(0, 0).mkdir(parents=True)
    run, got, sent = Run(), [], 0
    follower = Follower(layout, Selection())
    for batch in follower.follow(run.end):
        got += batch
        if sent < 300:
            for _ in range(20):
                log.write([line(f"r {sent}").encode()])
                sent += 1
        else:
            run.over = True
    assert words(got) == [f"r {i}" for i in range(300)]
    assert len(list(layout.node(0, 0).glob("rank-00000*.log"))) > 4


def test_what_the_cap_takes_before_it_was_read_is_named(layout: RunLayout) -> None:
    layout.node(0, 0).mkdir(parents=True)
    log = RankLog(str(layout.rank_log(0, 0, 0)), 0o600, Limits(part=1000, most=4000))
    run, got = Run(), []
    follower = Follower(layout, Selection())
    log.write([line("first r").encode()])
    for batch in follower.follow(run.end):
        got += batch
        if len(got) == 1 and not run.over:
            for i in range(300):
                log.write([line(f"r {i}").encode()])
            run.over = True
    found = [w for w in words(got) if w.startswith("ptx:")]
    assert found == ["ptx: part"]
    assert words(got)[-1] == "r 299" and words(got)[0] == "first r"
    assert log.dropped_bytes > 0
