"""Blocks of a log as columns: times that compare as numbers, and which lines have none."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.logs.columns import columns_of, key_of

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
