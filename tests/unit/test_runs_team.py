"""Several processes at one piece of work, and what becomes of it where one of them is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.runs.team import Team

ITEMS = [str(number) for number in range(300)]
SEEN: list[str] = []
FIRST = os.getpid()


def pid_of(item: str) -> tuple[str, int]:
    return item, os.getpid()


def remember(item: str) -> int:
    SEEN.append(item)
    return len(SEEN)


def was_mine(item: str) -> bool:
    return item in SEEN


def die_in_a_copy(item: str) -> str:
    if os.getpid() != FIRST:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def refuse(item: str) -> str:
    raise ValueError(item)


def test_answers_come_in_order_from_several_processes() -> None:
    with Team(3) as team:
        found = team.map(pid_of, ITEMS, str)
    assert [item for item, _ in found] == ITEMS
    assert len({pid for _, pid in found}) == 3


def test_an_item_goes_again_to_the_process_that_had_it() -> None:
    SEEN.clear()
    with Team(3) as team:
        team.map(remember, ITEMS, str)
        assert all(team.map(was_mine, list(reversed(ITEMS)), str))
    assert 0 < len(SEEN) < len(ITEMS)


def test_the_share_of_a_process_that_was_killed_is_done_by_the_first() -> None:
    with Team(3) as team:
        assert team.map(die_in_a_copy, ITEMS, str) == ITEMS
        assert team.map(pid_of, ITEMS, str) == [(item, FIRST) for item in ITEMS]


def test_an_error_comes_out_and_no_process_is_left() -> None:
    with pytest.raises(ValueError, match=r"\d+"), Team(2) as team:
        team.map(refuse, ITEMS, str)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_where_no_process_can_be_made_one_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", no_more)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Team(4) as team:
        assert team.map(pid_of, ITEMS, str) == [(item, FIRST) for item in ITEMS]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
