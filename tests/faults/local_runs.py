"""Runs on this machine for fault tests: a hand-made bundle, the real supervisor."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.plan.plan import PLAN_VERSION, Plan
from orchestrator.render.bundle import Bundle
from orchestrator.runs.events import Event, read_events
from orchestrator.runs.layout import RunLayout
from orchestrator.schedulers.local import Local

T = TypeVar("T")
STAND_INS = Path(__file__).resolve().parent.parent / "stand_ins"
PATIENCE = 60.0
"""Seconds until a test gives up; nothing that works comes near it."""


class LocalRun:
    """One run folder. `agent` is the text of a script that stands in for agent.pyz, or bytes of
    the real one."""

    def __init__(
        self, root: Path, run_id: str, agent: str | bytes, *, gpus: int = 0, grace: int = 10
    ) -> None:
        self.layout = RunLayout(root / run_id)
        self.layout.events.mkdir(parents=True)
        self.layout.bundle.mkdir()
        self.layout.plan.write_text(_plan(self.layout, gpus, grace).to_json())
        data = agent if isinstance(agent, bytes) else agent.encode()
        (self.layout.bundle / "agent.pyz").write_bytes(data)
        self.scheduler = Local()
        self.job_id = ""

    def submit(self) -> str:
        argv = self.scheduler.submit_argv(self.layout)
        bundle = Bundle(self.layout.run_id, self.layout.root, "local", (), argv)
        self.job_id = self.scheduler.submit(bundle, self.layout)
        return self.job_id

    def cancel(self) -> None:
        self.scheduler.cancel(self.layout, self.job_id)

    def events(self, kind: str) -> list[Event]:
        return [event for event in read_events(self.layout) if event.type == kind]

    def await_event(self, kind: str) -> Event:
        return until(lambda: self.events(kind), f"{self.layout.run_id}: {kind}", self.log)[0]

    @property
    def supervisor(self) -> int:
        return self.events("supervisor_started")[0].integer("pid")

    def log(self) -> str:
        return self.layout.scheduler_log.read_text()

    def processes(self) -> dict[int, str]:
        """What lives of the run on this machine, whoever its parent is: pid -> command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and self._owns(entry):
                found[int(entry.name)] = _command(entry)
        return found

    def _owns(self, entry: Path) -> bool:
        try:
            if (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] in b"ZX":
                return False
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return False
        # By the folder, too: another test of this file may have a run of the same id.
        root = str(self.layout.root)
        begin, end = f"PTX_MARK={self.layout.run_id}:".encode(), f":{root}".encode()
        marked = any(item.startswith(begin) and item.endswith(end) for item in environment)
        return marked or root in _command(entry)

    def end(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def until(look: Callable[[], T], what: str, explain: Callable[[], str] = str) -> T:
    """The first true answer."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := look()):
        assert time.monotonic() < deadline, f"never came: {what}\n{explain()}"
        time.sleep(0.02)
    return answer


def describe_gpus(path: Path, gpus: list[dict[str, Any]]) -> None:
    """Tell the stand-in for pynvml what there is, from now on."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(gpus))
    scratch.replace(path)


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _plan(layout: RunLayout, gpus: int, grace: int) -> Plan:
    ranks = max(1, gpus)
    return Plan(
        version=PLAN_VERSION,
        run_id=layout.run_id,
        run_dir=str(layout.root),
        name="fault",
        scheduler="local",
        launcher="torchrun",
        nodes=1,
        procs_per_node=ranks,
        gpus_per_node=gpus,
        world_size=ranks,
        cpus_per_proc=1,
        data_parallel_size=ranks,
        global_batch=ranks,
        python="python3",
        workdir="/",
        entrypoint=("true",),
        args={},
        rendezvous={"backend": "c10d", "port": None, "timeout": 600, "interface": None},
        strategy={"name": "ddp"},
        training={},
        restart={},
        checkpoint={},
        logging={},
        secrets=(),
        group_shared=False,
        grace_seconds=grace,
    )
