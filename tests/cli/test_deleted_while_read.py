"""A run folder that is deleted at whatever moment of a command: a sentence and an exit code."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun
from support.made_samples import leave_heartbeat, leave_samples, sample

from orchestrator.cli.main import main

COMMANDS = (
    *(["why"], ["top", "--once"], ["status"], ["plot"], ["plot", "--html", "-"]),
    *(["metrics"], ["metrics", "--csv"], ["metrics", "--json"], ["metrics", "--prometheus", "-"]),
)
LOOKS = ("open", "os.listdir", "os.scandir")


class Deleter:
    """Removes a folder at the n-th look into it."""

    def __init__(self) -> None:
        self._folder, self._left = "", 0
        self.done = False
        sys.addaudithook(self._hook)

    def arm(self, folder: Path, looks: int) -> None:
        self._folder, self._left, self.done = str(folder), looks, False

    def disarm(self) -> None:
        self._folder = ""

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._folder or event not in LOOKS or not arguments:
            return
        if not str(arguments[0]).startswith(self._folder):
            return
        self._left -= 1
        if self._left < 0:
            folder, self._folder = self._folder, ""
            self.done = True
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def deleter() -> Iterator[Deleter]:
    one = Deleter()  # an audit hook stays as long as the process
    yield one
    one.disarm()


def failed(run: MadeRun) -> None:
    leave(run, 0, "step 5", code=-15)
    leave(run, 1, "Traceback (most recent call last):\nValueError: bad batch", code=1)
    node_ended(run, {0: -15, 1: 1}, first=1).over()


def goes_on(run: MadeRun) -> None:
    leave_heartbeat(run.layout, time.time())


@pytest.mark.parametrize("end", [failed, goes_on])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_may_go_at_any_look(
    command: list[str],
    end: Callable[[MadeRun], None],
    deleter: Deleter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = MadeRun(tmp_path / "kept", "lm-aaaaaa", created=time.time() - 600).supervised().started()
    for step in (10, 20, 30):
        run.metrics(t=step, step=step, steps=100, loss=2.0)
    leave_samples(run.layout, [sample(time.time() - 500, ranks=[0, 1])])
    end(run)
    codes = set()
    for looks in range(200):
        folder = tmp_path / "runs" / "lm-aaaaaa"
        shutil.copytree(run.layout.root, folder, dirs_exist_ok=True)
        deleter.arm(folder, looks)
        codes.add(main([*command, str(folder)]))  # a bug of ptx would raise
        deleter.disarm()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        if not deleter.done:
            break
        if command[0] != "status":  # it says what it saw
            assert codes.pop() == 3 and "went away while" in said.out + said.err
    assert deleter.done is False and looks > 1  # it was asked at every look there is
    assert codes <= {0, 2}
