"""Stamping blocks: nothing is lost, split wrongly or out of order."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.stamp import Clock, Stamper, strip

LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [oOeE] [^\n]*")
STAMP = b"2026-11-21T00:47:11.123456Z"

text = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"\n", b"\r", b"a", b"\r\n", b"\0", b"\xff", b"2026"]), max_size=20
).map(b"".join)
actions = st.lists(st.tuples(st.sampled_from(["o", "e", "flush o", "flush e"]), text))


@given(actions, st.integers(1, 40))
def test_stripping_the_stamps_gives_the_bytes_of_each_stream_back(
    taken: list[tuple[str, bytes]], limit: int
) -> None:
    clock = Clock()
    stampers = {tag: Stamper(tag.encode(), limit) for tag in "oe"}
    sent = {"o": b"", "e": b""}
    log = b""
    for action, data in taken:
        if action.startswith("flush"):
            log += b"".join(stampers[action[-1]].flush(clock.stamp()))
        elif data:
            sent[action] += data
            log += b"".join(stampers[action].feed(data, clock.stamp()))
        assert log == b"" or log.endswith(b"\n")
        assert all(len(stamper.pending) <= max(limit, 60) for stamper in stampers.values())
    for stamper in stampers.values():
        log += b"".join(stamper.flush(clock.stamp()))
    assert {tag: strip(log, tag.encode()) for tag in "oe"} == sent
    lines = log.split(b"\n")[:-1]
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line[:27] for line in lines] == sorted(line[:27] for line in lines)


def test_whole_lines_are_small_letters_and_cut_ones_capital() -> None:
    stamper = Stamper(b"o")
    assert b"".join(stamper.feed(b"one\ntwo\nthr", STAMP)) == (
        STAMP + b" o one\n" + STAMP + b" o two\n"
    )
    assert b"".join(stamper.flush(STAMP)) == STAMP + b" O thr\n"
    assert b"".join(stamper.feed(b"ee\n", STAMP)) == STAMP + b" o ee\n"


def test_a_line_longer_than_the_limit_is_continued() -> None:
    stamper = Stamper(b"e", limit=4)
    assert b"".join(stamper.feed(b"abcdef", STAMP)) == STAMP + b" E abcdef\n"
    assert b"".join(stamper.feed(b"g\n", STAMP)) == STAMP + b" e g\n"


@given(st.lists(st.integers(0, 2**61)))
def test_stamps_never_go_backwards_whatever_the_clock_does(times: list[int]) -> None:
    clock = Clock(iter(times).__next__)
    stamps = [clock.stamp() for _ in times]
    assert stamps == sorted(stamps)
    assert all(len(stamp) == len(STAMP) for stamp in stamps)


def test_a_stamp_is_utc_to_the_microsecond() -> None:
    assert Clock(lambda: 1795222031123456789).stamp() == b"2026-11-21T00:47:11.123456Z"
