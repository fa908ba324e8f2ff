"""A trained model's folder: whole or not there, whatever became of those who wrote it before."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator.training.output import replacing


def killed_while_writing(folder: Path, *, after_the_old_moved: bool = False) -> None:
    pid = os.fork()
    if pid == 0:
        if after_the_old_moved:
            rename = Path.rename

            def last_words(path: Path, target: Path) -> Path:
                rename(path, target)
                os.kill(os.getpid(), signal.SIGKILL)
                raise AssertionError

            Path.rename = last_words  # type: ignore[assignment, method-assign]
        with replacing(folder, group_shared=False) as new:
            (new / "weights").write_text("half")
            if not after_the_old_moved:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def write(folder: Path, text: str) -> None:
    with replacing(folder, group_shared=False) as new:
        (new / "weights").write_text(text)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path.name.startswith("."))


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours on."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 7200)


def test_who_was_killed_is_in_nobodys_way_and_leaves_nothing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model [1]"
    killed_while_writing(folder)
    (left,) = hidden(folder)
    monkeypatch.setattr(os, "getpid", lambda: 1)  # in a container all have the same
    write(folder, "whole")
    assert hidden(folder) == [left]  # it may be at work yet
    later(monkeypatch)
    write(folder, "again")
    assert ((folder / "weights").read_text(), hidden(folder)) == ("again", [])


def test_the_old_model_comes_back_where_the_writer_died_between_the_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    write(folder, "old")
    killed_while_writing(folder, after_the_old_moved=True)
    later(monkeypatch)
    assert not folder.exists()
    with pytest.raises(OSError, match="no room"), replacing(folder, group_shared=False):
        raise OSError("no room")
    assert (folder / "weights").read_text() == "old"


def test_what_a_person_keeps_beside_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    mine = [".model.bak-2026", ".model.old-2025", ".model.new-1", ".other.old-" + "0" * 32]
    for name in mine:
        (tmp_path / name).mkdir()
    later(monkeypatch)
    write(folder, "whole")
    assert hidden(folder) == sorted(mine)
