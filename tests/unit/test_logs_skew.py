"""Clocks of nodes that are off, told by heartbeats and events against the file server's time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.logs.line import TEXT, stamp_of
from orchestrator.logs.merge import merge
from orchestrator.logs.reader import LogReader
from orchestrator.logs.select import discover
from orchestrator.logs.skew import Shift, Skews, shift_of
from orchestrator.runs.layout import RunLayout

START = 1_795_000_000.0


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path / "run-abc123")
    layout.events.mkdir(parents=True)
    return layout


def node(layout: RunLayout, number: int, ahead: float, *, delay: float = 0.1) -> None:
    """A node whose clock is `ahead`; its files reach the server after a `delay`."""
    folder = layout.node(0, number)
    folder.mkdir(parents=True)
    beat, event = folder / "heartbeat", layout.events / f"a000-node-{number:04d}.jsonl"
    beat.write_text(json.dumps({"t": START + 30 + ahead, "seq": 1}).ljust(63) + "\n")
    event.write_text(json.dumps({"v": 1, "t": START + ahead, "type": "node_started"}) + "\n")
    os.utime(beat, (START + 30 + delay,) * 2)
    os.utime(event, (START + delay,) * 2)


def test_lines_of_nodes_minutes_apart_are_in_the_order_in_which_they_were_written(
    layout: RunLayout,
) -> None:
    """From the first line on."""
    errors = [0.0, 185.25, -240.5, 3.0]
    for number, ahead in enumerate(errors):
        node(layout, number, ahead)
        lines = [
            f"{stamp_of(START + i + number / 4 + ahead)} o {4 * i + number}\n" for i in range(20)
        ]
        layout.rank_log(0, number, number).write_text("".join(lines))
    skews = Skews(layout)
    readers = [
        LogReader(log.path, source, shift=skews.of(log))
        for source, log in enumerate(discover(layout))
    ]
    found = [int(entry[2][TEXT:]) for batch in merge(readers) for entry in batch]
    assert found == list(range(80))


@pytest.mark.parametrize("ahead", [0.0, 0.4, -1.5, 1.9])
def test_a_clock_that_is_about_right_is_left_alone(layout: RunLayout, ahead: float) -> None:
    node(layout, 0, ahead)
    assert shift_of(layout, 0, 0) is None


def test_a_copied_folder_corrects_nothing(layout: RunLayout) -> None:
    node(layout, 0, 0)
    for path in (layout.node(0, 0) / "heartbeat", layout.events / "a000-node-0000.jsonl"):
        os.utime(path, (START + 600,) * 2)
    assert shift_of(layout, 0, 0) is None


@pytest.mark.parametrize(
    "beat", [b"", b"{", b"\x00" * 64, b"[1]\n", b'{"t":"x"}\n', b'{"t":1e400}\n', b"[" * 63 + b"\n"]
)
def test_a_corrupt_heartbeat_corrects_nothing(layout: RunLayout, beat: bytes) -> None:
    node(layout, 0, 300)
    assert shift_of(layout, 0, 0) is not None
    (layout.node(0, 0) / "heartbeat").write_bytes(beat)
    assert shift_of(layout, 0, 0) is None


def test_a_shift_goes_there_and_back() -> None:
    shift = Shift(125.000001)
    stamp = stamp_of(START)
    assert shift(stamp) == stamp_of(START - 125.000001)
    assert shift.back(shift(stamp)) == stamp
    for odd in ("0000-00-00T00:00:00.000000Z", "9999-99-99T99:99:99.999999Z"):
        assert shift(odd) == odd
