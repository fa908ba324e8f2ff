"""Which nodes give no sign of life, and what says nothing about that."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.heartbeat import INTERVAL, Heartbeat
from orchestrator.agent.silence import Silence

HANG_AFTER = 600
LIMIT = HANG_AFTER + 3 * INTERVAL


class World:
    """Nodes that beat and a supervisor that looks, by a clock of their own."""

    def __init__(self, folder: Path, nodes: int, after: float | None) -> None:
        self.now = 1000.0
        self.root = folder
        self.attempt = folder / "attempts" / "000"
        (folder / "events").mkdir()
        self.attempt.mkdir(parents=True)
        self.hearts: dict[int, Heartbeat] = {}
        self.silence = Silence(folder, 0, nodes, {"hang_after": after})

    def begins(self, *nodes: int) -> None:
        for node in nodes:
            path = self.attempt / f"node-{node:04d}" / "heartbeat"
            path.parent.mkdir()
            self.hearts[node] = Heartbeat(path, 0o600)

    def ends(self, node: int) -> None:
        del self.hearts[node]
        line = {"v": 1, "t": 1.0, "type": "node_ended", "attempt": 0, "node": node}
        (self.root / f"events/a000-node-{node:04d}.jsonl").write_text(json.dumps(line) + "\n")

    def passes(self, seconds: float, *, beating: bool = True) -> dict[int, float]:
        """Second by second, until somebody is found to be silent."""
        for _ in range(int(seconds)):
            self.now += 1
            for heart in self.hearts.values() if beating else ():
                heart.beat_if_due()
            if found := self.silence.look():
                return found
        return {}


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def one(nodes: int = 1, after: float | None = HANG_AFTER) -> World:
        worlds: list[World] = []
        monkeypatch.setattr(time, "monotonic", lambda: worlds[0].now if worlds else 1000.0)
        worlds.append(World(tmp_path, nodes, after))
        return worlds[0]

    return one


def test_a_node_that_stops_beating_is_silent_and_no_other(make: Make) -> None:
    world = make(3)
    world.begins(0, 1, 2)
    assert world.passes(3 * LIMIT) == {}
    frozen = world.now
    del world.hearts[1]
    (found,) = world.passes(3 * LIMIT).items()
    assert found[0] == 1
    assert LIMIT < found[1] <= world.now - frozen + INTERVAL


def test_a_heart_may_miss_three_beats_however_short_the_time_is(make: Make) -> None:
    world = make(after=1)
    world.begins(0)
    world.passes(100)
    assert world.passes(3 * INTERVAL, beating=False) == {}
    assert world.passes(2) == {}
    assert set(world.passes(5 * INTERVAL, beating=False)) == {0}


def test_a_node_that_has_not_begun_is_not_silent(make: Make) -> None:
    world = make(2)
    world.begins(0)
    assert world.passes(5 * LIMIT) == {}


def test_a_node_that_has_ended_is_not_silent_while_another_writes_the_model(make: Make) -> None:
    world = make(2)
    world.begins(0, 1)
    world.passes(100)
    world.ends(1)
    assert world.passes(5 * LIMIT) == {}


def test_without_hang_after_nobody_is_silent_and_nothing_is_written(make: Make) -> None:
    world = make(after=None)
    world.begins(0)
    world.passes(100)
    before = world.attempt.stat().st_mtime_ns
    assert world.passes(10 * LIMIT, beating=False) == {}
    assert world.attempt.stat().st_mtime_ns == before
    assert world.silence.due() > 10 * LIMIT


def test_time_in_which_the_supervisor_was_suspended_too_is_none(make: Make) -> None:
    world = make()
    world.begins(0)
    world.passes(100)
    world.now += 10 * LIMIT
    assert world.passes(5 * INTERVAL) == {}


@pytest.mark.parametrize("stamp", [0, 4e9])
def test_no_clock_makes_a_node_silent(make: Make, stamp: float) -> None:
    """Neither the file server's nor the node's own."""
    world = make()
    world.begins(0)
    for _ in range(60):
        assert world.passes(INTERVAL) == {}
        os.utime(world.attempt / "node-0000" / "heartbeat", (stamp, stamp))


def test_a_file_server_that_takes_no_file_makes_nobody_silent(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is away nor as it comes back, before hearts have beaten again."""
    world = make(2)
    world.begins(0, 1)
    world.passes(100)
    synced = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert world.passes(3 * LIMIT, beating=False) == {}
    assert sorted(path.name for path in world.attempt.iterdir()) == ["node-0000", "node-0001"]
    monkeypatch.setattr(os, "fsync", synced)
    assert world.passes(INTERVAL, beating=False) == {}
    assert world.passes(3 * LIMIT) == {}
    assert set(world.passes(3 * LIMIT, beating=False)) == {0, 1}, "it counts anew"


def test_a_file_server_that_answers_late_makes_nobody_silent(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()
    world.begins(0)
    world.passes(100)
    synced = os.fsync

    def slow(descriptor: int) -> None:
        world.now += 2 * INTERVAL
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    assert world.passes(3 * LIMIT, beating=False) == {}


def test_a_heart_beats_on_where_the_file_server_has_forgotten_its_file(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()
    world.begins(0)
    world.passes(100)
    stale: list[int] = []
    written = os.pwrite

    def forgotten(descriptor: int, data: Any, offset: int) -> int:
        stale[:] = stale or [descriptor]
        if descriptor in stale:
            raise OSError(errno.ESTALE, "Stale file handle")
        return written(descriptor, data, offset)

    opened = os.open

    def anew(*args: Any, **more: Any) -> int:
        """Never the number of one that is closed, which would be taken for it."""
        descriptor = opened(*args, **more)
        if descriptor not in stale:
            return descriptor
        other = os.dup(descriptor)
        os.close(descriptor)
        return other

    monkeypatch.setattr(os, "pwrite", forgotten)
    monkeypatch.setattr(os, "open", anew)
    assert world.passes(3 * LIMIT) == {}
    assert stale
