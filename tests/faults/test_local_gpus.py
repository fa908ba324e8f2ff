"""Runs that want GPUs wait for them in turn, and no device ever has two holders. A stand-in
plays the NVIDIA driver; supervisors, leases and signals are real."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from local_runs import STAND_INS, LocalRun, describe_gpus, until

from orchestrator.devices.gpu import Inventory
from orchestrator.errors import UserError
from orchestrator.runs.events import ClientEvents
from orchestrator.schedulers import supervisor
from orchestrator.schedulers.base import JobState
from orchestrator.schedulers.lease import Holder, Leases
from orchestrator.schedulers.supervisor import REPLACED

MakeRun = Callable[..., LocalRun]
GIB = 1 << 30
A, B, C = ({"uuid": f"GPU-{letter}", "total": 100 * GIB} for letter in "abc")

# Notes its devices when it starts and again when it ends: at once, or when the file `go` appears.
AGENT = """
import os, sys, time
run = os.path.dirname(os.path.dirname(sys.argv[-1]))
ledger = os.open(run + "/../ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(word):
    devices = os.environ["CUDA_VISIBLE_DEVICES"]
    os.write(ledger, f"{os.path.basename(run)} {word} {devices}\\n".encode())
note("start")
time.sleep(0.3)
while WAIT and not os.path.exists(run + "/go"):
    time.sleep(0.02)
note("end")
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The description of this machine's GPUs, of which it has three at first."""
    description = tmp_path / "gpus.json"
    describe_gpus(description, [A, B, C])
    monkeypatch.setenv("NVML_STAND_IN", str(description))
    monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
    monkeypatch.setenv("PTX_LEASES", str(tmp_path / "leases"))
    return description


@pytest.fixture
def make_run(tmp_path: Path, machine: Path) -> Iterator[MakeRun]:
    made: list[LocalRun] = []

    def make(number: int, gpus: int, *, wait: bool = True) -> LocalRun:
        agent = f"WAIT = {wait}\n{AGENT}"
        made.append(LocalRun(tmp_path / "runs", f"demo-{number:04d}", agent, gpus=gpus))
        return made[-1]

    yield make
    for run in made:
        run.end()


def started(run: LocalRun) -> str:
    """CUDA_VISIBLE_DEVICES as the agent got it."""
    path = run.layout.root.parent / "ledger"

    def line() -> list[str]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [text for text in lines if text.startswith(f"{run.layout.run_id} start ")]

    return until(line, "the agent's start", run.log)[0].split()[2]


def go(run: LocalRun) -> None:
    (run.layout.root / "go").touch()


def state(run: LocalRun) -> JobState:
    return run.scheduler.query({run.job_id: run.layout})[0].state


def test_a_run_gets_free_devices_by_uuid_and_gives_them_back(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(1, 2)
    run.submit()
    assert started(run) == "GPU-a,GPU-b"
    assert run.events("gpus_bound")[0].fields == {"devices": ["GPU-a", "GPU-b"]}
    with Leases(tmp_path / "leases") as leases:
        me = Holder("demo-0001", run.supervisor)
        assert leases.holders() == {"GPU-a": me, "GPU-b": me}
        go(run)
        assert run.await_event("supervisor_ended").fields == {"rc": 0}
        until(lambda: not leases.holders(), "the end of the lease")


def test_the_persons_own_cuda_visible_devices_is_honoured(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    run = make_run(1, 2)
    run.submit()
    assert started(run) == "GPU-c,GPU-a"
    too_large = make_run(2, 3)
    with pytest.raises(UserError, match="wants 3 GPUs and can see 2") as caught:
        too_large.submit()
    assert "CUDA_VISIBLE_DEVICES" in (caught.value.hint or "")
    assert not too_large.events("supervisor_started")
    until(lambda: not too_large.processes(), "the supervisor's end")


def test_a_driver_that_does_not_answer_is_told_at_submit(make_run: MakeRun, machine: Path) -> None:
    machine.write_text('"Driver/library version mismatch"')
    with pytest.raises(UserError, match="version mismatch"):
        make_run(1, 1).submit()


def test_a_lease_folder_of_others_is_told_at_submit(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases").chmod(0o777)
    with pytest.raises(UserError, match="not yours alone"):
        make_run(1, 1).submit()


@pytest.mark.slow
def test_a_waiting_run_that_was_resumed_elsewhere_gives_way(make_run: MakeRun) -> None:
    """`ptx resume` on another machine sees neither its process nor a heartbeat."""
    first, second = make_run(1, 2), make_run(2, 2)
    first.submit()
    started(first)
    second.submit()
    second.await_event("waiting_for_gpus")
    ClientEvents.claim(second.layout, 1, attempt=0)
    until(lambda: not second.processes(), "the end of the one that waits", second.log)
    assert REPLACED in second.log()
    assert not second.events("job_started") and not second.events("supervisor_ended")


def test_a_file_server_that_fails_while_a_run_waits_ends_it_not(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signals:
        stop = False
        pauses = 0

        def pause(self, _: float) -> None:
            self.pauses += 1
            self.stop = self.pauses == 3

    layout, signals = make_run(1, 1).layout, Signals()
    plan = json.loads(layout.plan.read_text())
    run = supervisor.Run(layout, plan, cast("supervisor.Signals", signals))
    monkeypatch.setattr(supervisor, "inventory", lambda: Inventory(()))
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if signals.pauses == 1 and str(path) == str(layout.events):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert run.supervise(Leases(tmp_path / "own")) == -signal.SIGTERM
    assert signals.pauses == 3


@pytest.mark.slow
def test_a_waiting_run_says_so_once_and_starts_when_the_first_ends(make_run: MakeRun) -> None:
    first, second = make_run(1, 2), make_run(2, 2)
    first.submit()
    started(first)
    second.submit()
    assert second.await_event("waiting_for_gpus").fields == {"wanted": 2, "free": 1}
    assert state(second) == JobState.PENDING
    assert not second.events("job_started")
    go(first)
    assert started(second) == "GPU-a,GPU-b"
    assert state(second) == JobState.RUNNING
    assert len(second.events("waiting_for_gpus")) == 1


@pytest.mark.slow
def test_a_killed_holder_makes_way(make_run: MakeRun) -> None:
    first, second = make_run(1, 3), make_run(2, 1)
    first.submit()
    started(first)
    second.submit()
    second.await_event("waiting_for_gpus")
    os.kill(first.supervisor, signal.SIGKILL)
    assert started(second) == "GPU-a"


@pytest.mark.slow
def test_devices_that_strangers_use_are_waited_for(make_run: MakeRun, machine: Path) -> None:
    busy = {"used": 50 * GIB}, {"compute": [[os.getpid(), GIB]]}, {"used": 6 * GIB}
    describe_gpus(machine, [gpu | load for gpu, load in zip((A, B, C), busy, strict=True)])
    run = make_run(1, 1)
    run.submit()
    assert run.await_event("waiting_for_gpus").fields == {"wanted": 1, "free": 0}
    describe_gpus(machine, [A | busy[0], B, C | busy[2]])
    assert started(run) == "GPU-b"


def test_cancel_ends_a_waiting_run_at_once(make_run: MakeRun) -> None:
    first, second = make_run(1, 3), make_run(2, 1)
    first.submit()
    started(first)
    second.submit()
    second.await_event("waiting_for_gpus")
    second.cancel()
    ended = second.await_event("supervisor_ended")
    assert ended.integer("rc") == -signal.SIGTERM
    assert state(second) == JobState.CANCELLED
    assert not second.events("job_started")
    until(lambda: not second.processes(), "the supervisor's end")
    assert state(first) == JobState.RUNNING


@pytest.mark.slow
def test_no_device_ever_has_two_holders(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(number, 1 + number % 3, wait=False) for number in range(7)]
    first = make_run(9, 3)
    first.submit()
    started(first)
    for run in runs:
        run.submit()
    for run in runs:
        run.await_event("waiting_for_gpus")
    go(first)
    for run in (first, *runs):
        assert run.await_event("supervisor_ended").fields == {"rc": 0}
    held: dict[str, str] = {}
    for line in (tmp_path / "runs" / "ledger").read_text().splitlines():
        run_id, word, devices = line.split()
        for device in devices.split(","):
            if word == "start":
                assert device not in held, f"{run_id} got {device} from {held[device]}"
                held[device] = run_id
            else:
                assert held.pop(device) == run_id
    assert held == {}
