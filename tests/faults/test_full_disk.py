"""A disk that is full for a while: a small one, mounted for the test, with a whole run on it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from support import kept_work
from support.ptx import Ptx, eventually
from support.small_disk import fill, small_disk

from orchestrator.agent.events import Events
from orchestrator.runs.events import ClientEvents, read_events
from orchestrator.runs.layout import RunLayout

pytestmark = [pytest.mark.slow, pytest.mark.mount]

HERE = ("--scheduler", "local", "--set", "resources.procs_per_node=2")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


class Filler:
    """Takes every byte of a disk, those that become free too, while it is entered."""

    def __init__(self, disk: Path) -> None:
        self._file, self._over = disk / "filler", Event()
        self._thread = Thread(target=self._fill)

    def __enter__(self) -> Filler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._file.unlink()

    def _fill(self) -> None:
        with self._file.open("ab", buffering=0) as file:
            while not self._over.wait(0.001):
                with suppress(OSError):  # it is full, for the moment
                    while not self._over.is_set():
                        file.write(b"x" * 4096)


def _agents(layout: RunLayout) -> Callable[..., object]:
    return Events(layout.events / "job.jsonl", 0o600).append


def _clients(layout: RunLayout) -> Callable[..., object]:
    return ClientEvents(layout).append


@pytest.mark.parametrize("writer", [_agents, _clients])
def test_an_event_that_a_full_disk_cuts_in_two_is_told_and_takes_no_other_with_it(
    disk: Path,
    writer: Callable[[RunLayout], Callable[..., object]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    layout = RunLayout(disk / "r-aaaaaa")
    layout.events.mkdir(parents=True)
    append = writer(layout)
    append("begin")
    (path,) = layout.events.iterdir()
    filler, size, told = fill(disk), path.stat().st_size, ""
    try:
        append("cut", text="x" * os.sysconf("SC_PAGE_SIZE"))
    except OSError as error:  # a client's; an agent goes on
        told = str(error)
    assert "No space left on device" in told + capfd.readouterr().err
    assert path.stat().st_size > size, "half of it was written"
    filler.unlink()
    append("whole")
    assert [event.type for event in read_events(layout)] == ["begin", "whole"]


def changes(folder: Path) -> Callable[[], int]:
    """How often entries of a folder were seen to come or go since."""
    seen = [folder.stat().st_mtime_ns]

    def count() -> int:
        now = folder.stat().st_mtime_ns
        if now != seen[-1]:
            seen.append(now)
        return len(seen) - 1

    return count


def checkpoints(run: Path) -> list[str]:
    return sorted(path.parent.name for path in run.glob("checkpoints/*/manifest.json"))


def test_a_full_disk_costs_no_checkpoint_and_no_run(disk: Path, tmp_path: Path) -> None:
    ptx = Ptx(disk / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})
    run = kept_work.submit(ptx, HERE, 100_000, strategy__name="ddp")
    eventually(
        lambda: len(checkpoints(run)) == 2, within=120, what="saves", story=lambda: ptx.story(run)
    )
    with Filler(disk):
        eventually(lambda: not os.statvfs(disk).f_bavail, within=30, what="a full disk")
        tried = changes(run / "checkpoints")
        eventually(lambda: tried() >= 4, within=60, what="saves that fail")
        before = checkpoints(run)
        assert before
        assert ptx("checkpoints", "verify", run.name).returncode == 0
        status = ptx.ok("status", run.name)
        assert "running" in status
        assert "disk      full, 0 B left: checkpoints, logs and metrics are not" in status
        assert "step 2/100000 loss" in ptx.ok("logs", run.name)
        assert json.loads(ptx.ok("status", run.name, "--json"))["state"] == "running"
        time.sleep(0.1)
        assert checkpoints(run) == before, "nothing new could be committed"
    eventually(
        lambda: checkpoints(run)[0] > before[-1],
        within=60,
        what="checkpoints beyond those",
        story=lambda: ptx.story(run),
    )
    eventually(lambda: "written again: that of" in ptx.ok("logs", run.name), within=30, what="why")
    (told,) = [line for line in ptx.ok("logs", run.name).splitlines() if "written again: " in line]
    assert "No space left on device" in told
    assert "disk  " not in ptx.ok("status", run.name)
    assert kept_work.attempts(run) == 1
    ptx.ok("cancel", run.name)
    assert ptx("wait", run.name, "--timeout", "60s").returncode == 1
    assert ptx("checkpoints", "verify", run.name).returncode == 0
