"""A device has one holder, waiting is in turn, and nothing outlives its process."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.schedulers.lease import UNNAMED, Holder, Leases, lease_folder

A, B, C, D = "GPU-a", "GPU-b", "GPU-c", "MIG-GPU-d/1/0"
ME = Holder("run-me", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "leases"


@pytest.fixture
def leases(folder: Path) -> Iterator[Leases]:
    with Leases(folder) as opened:
        yield opened


# Each lock belongs to one opening of its file, so two leases in one process exclude each other
# just as those of two processes do; the tests with real processes are at the end.


def test_all_or_nothing(leases: Leases) -> None:
    with leases.queue([A, B, C]) as ticket:
        first = leases.acquire(ticket, [A], 1, ME)
        assert first is not None and first.devices == (A,)
        assert leases.acquire(ticket, [A, B, C], 3, ME) is None
        rest = leases.acquire(ticket, [A, B, C], 2, ME)
        assert rest is not None and rest.devices == (B, C)


def test_only_what_is_free_and_asked_for_is_taken(leases: Leases) -> None:
    with leases.queue([A, B]) as ticket:
        assert leases.acquire(ticket, [C], 1, ME) is None
        assert leases.acquire(ticket, [], 1, ME) is None
        assert leases.holders() == {}


def test_a_released_device_can_be_had_again(leases: Leases) -> None:
    with leases.queue([D]) as ticket:
        lease = leases.acquire(ticket, [D], 1, ME)
        assert lease is not None
        assert leases.holders() == {D: ME}
        lease.release()
        assert leases.holders() == {}
        assert leases.acquire(ticket, [D], 1, ME) is not None


def test_a_later_run_does_not_overtake_one_that_waits_for_more(leases: Leases) -> None:
    with ExitStack() as line:
        large = line.enter_context(leases.queue([A, B]))
        small = line.enter_context(leases.queue([B, C]))
        assert leases.acquire(small, [B], 1, ME) is None
        assert leases.acquire(large, [A, B], 2, ME) is not None
        assert leases.acquire(small, [C], 1, ME) is None  # until the first has left the line


def test_runs_that_want_different_devices_do_not_wait_for_each_other(leases: Leases) -> None:
    with leases.queue([A, B]), leases.queue([C]) as other:
        assert leases.acquire(other, [C], 1, ME) is not None


def test_leaving_the_line_lets_the_next_one_in(leases: Leases) -> None:
    with ExitStack() as line:
        line.enter_context(leases.queue([A]))
        with leases.queue([A]) as second:
            assert leases.acquire(second, [A], 1, ME) is None
            line.close()
            assert leases.acquire(second, [A], 1, ME) is not None


def test_the_folder_does_not_follow_the_login_session() -> None:
    assert lease_folder({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path(f"/tmp/ptx-{os.geteuid()}")
    assert lease_folder({"PTX_LEASES": "/scratch/x"}) == Path("/scratch/x")
    assert lease_folder({"PTX_LEASES": "relative"}) == Path(f"/tmp/ptx-{os.geteuid()}")


def test_the_folder_is_made_private_whatever_the_umask(folder: Path) -> None:
    previous = os.umask(0)
    try:
        Leases(folder).close()
    finally:
        os.umask(previous)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot be used"):
        Leases(folder)


def test_a_link_in_place_of_a_lease_is_not_followed(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with Leases(folder) as leases, leases.queue([A]) as ticket:
        (folder / f"device-{A}").symlink_to(victim)
        with pytest.raises(OSError, match="symbolic links"):
            leases.acquire(ticket, [A], 1, ME)
    assert victim.read_text() == "precious"


def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(UserError, match="not yours alone"):
        Leases(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(UserError, match="not yours alone"):
        Leases(folder)


@contextmanager
def no_room() -> Iterator[None]:
    """Files can be made and not written, as on a full disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_on_a_full_disk_the_lock_counts_without_its_record(leases: Leases) -> None:
    with ExitStack() as line:
        with no_room():
            first = line.enter_context(leases.queue([A, D]))
            lease = leases.acquire(first, [A, D], 2, ME)
        assert lease is not None and lease.devices == (A, D)
        assert leases.holders() == {A: UNNAMED, D: UNNAMED}
        second = line.enter_context(leases.queue([A, B]))
        assert leases.acquire(second, [B], 1, ME) is None  # the first may want any
    assert leases.holders().keys() == {A, D}
    with leases.queue([A, B]) as third:
        assert leases.acquire(third, [A, B], 2, ME) is None
        lease.release()
        assert leases.holders() == {}
        with no_room():
            taken = leases.acquire(third, [A, B], 2, ME)
        assert taken is not None and leases.holders() == {A: UNNAMED, B: UNNAMED}


@pytest.mark.parametrize("record", ["", '{"uuid": "GPU-a", "ru', "[]", '{"uuid": 7, "pid": "x"}'])
def test_a_record_that_says_nothing_is_of_somebody(
    leases: Leases, folder: Path, record: str
) -> None:
    with leases.queue([A]) as ticket:
        assert leases.acquire(ticket, [A], 1, ME) is not None
        for path in (*folder.glob("device-*"), *folder.glob("ticket-*")):
            path.write_text(record)
        assert leases.holders() == {A: UNNAMED}
        with leases.queue([B]) as later:
            assert leases.acquire(later, [B], 1, ME) is None


HOLDER = """
import os, sys
from pathlib import Path
from orchestrator.schedulers.lease import Holder, Leases
folder, wanted, *devices = sys.argv[1:]
leases = Leases(Path(folder))
with leases.queue(devices) as ticket:
    lease = leases.acquire(ticket, devices, int(wanted), Holder("run-other", os.getpid()))
    print(lease and ",".join(lease.devices), flush=True)
    if lease:
        import subprocess
        child = subprocess.Popen(["sleep", "60"])  # must not keep the lease
        print(child.pid, flush=True)
    input()
"""


class Process:
    """A process that stands in line, and holds what it got until it is killed."""

    def __init__(self, folder: Path, wanted: int, *devices: str) -> None:
        self.child: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, folder, str(wanted), *devices],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        self.got = self._line()
        if self.got != "None":
            self.child = int(self._line())
        self.pid = self._process.pid

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        assert self._process.wait() == -signal.SIGKILL

    def close(self) -> None:
        self._process.kill()
        if self.child is not None:
            os.kill(self.child, signal.SIGKILL)
        self._process.communicate()  # until the child has let go of the pipe too


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_killed_holder_loses_its_devices_though_its_child_lives(
    folder: Path, leases: Leases, processes: ExitStack
) -> None:
    other = Process(folder, 2, A, B)
    processes.callback(other.close)
    assert other.got == f"{A},{B}"
    held = Holder("run-other", other.pid)
    assert leases.holders() == {A: held, B: held}
    assert other.child is not None
    other.kill()
    os.kill(other.child, 0)  # alive
    assert leases.holders() == {}
    with leases.queue([A, B]) as ticket:
        assert leases.acquire(ticket, [A, B], 2, ME) is not None


def test_a_killed_waiter_holds_nobody_up(
    folder: Path, leases: Leases, processes: ExitStack
) -> None:
    waiter = Process(folder, 2, A)  # can never have two of one
    processes.callback(waiter.close)
    assert waiter.got == "None"
    with leases.queue([A]) as ticket:
        assert leases.acquire(ticket, [A], 1, ME) is None
        waiter.kill()
        assert leases.acquire(ticket, [A], 1, ME) is not None
    assert not list(folder.glob("ticket-*"))
