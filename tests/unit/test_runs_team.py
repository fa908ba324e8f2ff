"""Several processes at one piece of work, and what becomes of it where one of them is lost."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.children import children
from support.node_run import until

from orchestrator.runs import team as team_module
from orchestrator.runs.team import Team

COUNT = 300


class Member:
    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.first = os.getpid()
        self.seen: set[int] = set()

    def pids(self, first: int, after: int) -> list[tuple[int, int]]:
        self.seen |= set(range(first, after))
        return [(number, os.getpid()) for number in range(first, after)]

    def together(self, first: int, after: int) -> list[tuple[int, int]]:
        self.begin()
        self.await_others()
        return self.pids(first, after)

    def begin(self) -> None:
        assert self.folder is not None
        (self.folder / str(os.getpid())).touch()

    def await_others(self) -> None:
        """None goes on before three processes have something to do."""
        folder = self.folder
        assert folder is not None
        until(lambda: len(list(folder.iterdir())) == 3, "three at work")

    def had(self, numbers: Sequence[int]) -> list[tuple[int, bool]]:
        return [(os.getpid(), number in self.seen) for number in numbers]

    def die_in_a_copy(self, first: int, after: int) -> list[tuple[int, int]]:
        self.begin()
        if os.getpid() != self.first:
            os.kill(os.getpid(), signal.SIGKILL)
        self.await_others()
        return self.pids(first, after)

    def die_when_asked_again(self, numbers: Sequence[int]) -> list[int]:
        if os.getpid() != self.first:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(numbers)

    def refuse(self, first: int, after: int) -> list[int]:
        raise ValueError(first, after)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_module, "_PIECE", 7)


def test_all_is_done_in_order_by_several_processes(tmp_path: Path) -> None:
    member = Member(tmp_path)
    with Team(3, member) as team:
        found = team.share(member.together, COUNT)
    assert [number for number, _ in found] == list(range(COUNT))
    assert len({pid for _, pid in found}) == 3


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8])
def test_any_number_of_things_is_done(count: int) -> None:
    member = Member()
    with Team(3, member) as team:
        assert [number for number, _ in team.share(member.pids, count)] == list(range(count))
        assert team.again(member.had, []) == []


def test_what_is_to_be_done_meanwhile_is_done_once_by_the_first_while_others_work(
    tmp_path: Path,
) -> None:
    member, done = Member(tmp_path), []

    def meanwhile() -> None:
        until(lambda: len(list(tmp_path.iterdir())) == 2, "both copies at work")
        done.append(os.getpid())

    with Team(3, member) as team:
        found = team.share(member.together, COUNT, meanwhile)
    assert [number for number, _ in found] == list(range(COUNT))
    assert done == [member.first]


def test_where_nobody_else_works_nothing_is_done_meanwhile() -> None:
    member, done = Member(), []
    with Team(1, member) as team:
        assert len(team.share(member.pids, COUNT, lambda: done.append(1))) == COUNT
    assert not done


def test_more_pieces_than_a_pipe_has_room_for_are_larger_ones() -> None:
    """Else the queue would never be filled."""
    member = Member()
    with Team(1, member) as team:
        assert len(team.share(lambda first, after: [0] * (after - first), 10**6)) == 10**6


def test_what_is_asked_again_is_asked_of_the_process_that_had_it(tmp_path: Path) -> None:
    member = Member(tmp_path)
    with Team(3, member) as team:
        owners = dict(team.share(member.together, COUNT))
        numbers = [*range(COUNT - 1, 0, -3)]
        told = team.again(member.had, [(number, number) for number in numbers])
    assert told == [(owners[number], True) for number in numbers]
    assert 0 < len(member.seen) < COUNT


def test_what_a_killed_process_had_taken_is_done_by_the_first(tmp_path: Path) -> None:
    member = Member(tmp_path)
    with Team(3, member) as team:
        found = team.share(member.die_in_a_copy, COUNT)
        assert found == [(number, member.first) for number in range(COUNT)]
        assert team.again(member.had, [(5, 5)]) == [(member.first, True)]


def test_what_a_process_killed_later_is_asked_is_answered_by_the_first(tmp_path: Path) -> None:
    member = Member(tmp_path)
    with Team(3, member) as team:
        team.share(member.together, COUNT)
        asked = [(number, number) for number in range(COUNT)]
        assert team.again(member.die_when_asked_again, asked) == list(range(COUNT))
        assert team.again(member.die_when_asked_again, asked) == list(range(COUNT))


def test_an_error_comes_out_and_no_process_is_left() -> None:
    gc.collect()  # files that an earlier test left to be collected
    before = open_files(), children()
    member = Member()
    with pytest.raises(ValueError, match=r"\d+"), Team(2, member) as team:
        team.share(member.refuse, COUNT)
    assert (open_files(), children()) == before


def test_where_no_process_can_be_made_one_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", no_more)
    gc.collect()
    before, member = open_files(), Member()
    with Team(4, member) as team:
        assert {pid for _, pid in team.share(member.pids, COUNT)} == {member.first}
        assert team.again(member.had, [(1, 1)]) == [(member.first, True)]
    assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
