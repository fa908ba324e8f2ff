"""The process that stays with a local run: it waits for GPUs, holds their lease and starts the
agent, once more where an attempt failed and the spec allows it. It lives as long as the run, so it
imports little.

Started detached, with argv `CODE ROOT RUN_DIR` (see local.py). Its standard output carries one
JSON line to whoever started it, `{"job_id": ...}` or `{"error": ..., "hint": ...}`; what it prints
later goes to standard error, the run's scheduler.log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.agent.attempts import (
    begin_attempt,
    past_of,
    read_events,
    read_nodes,
    record_end,
)
from orchestrator.agent.classes import Evidence, Policy, Verdict, judge, pause
from orchestrator.agent.clients import newest_submission
from orchestrator.agent.events import Events
from orchestrator.agent.linux import become_subreaper
from orchestrator.agent.stderr import tell
from orchestrator.devices.gpu import Device
from orchestrator.devices.nvml import inventory
from orchestrator.devices.visible import visible
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name, this_process
from orchestrator.schedulers.lease import Holder, Lease, Leases, lease_folder
from orchestrator.schedulers.local_agent import LocalAgent
from orchestrator.schedulers.signals import Signals

POLL_SECONDS = 2.0
STOPPED = "told to stop (SIGTERM) before its ranks were started"
REPLACED = "`ptx resume` has put another in the place of this supervisor"


def local_job_id(pid: int) -> str:
    return f"local-{host_name()}-{pid}"


def main() -> None:
    """Split from the starter, so that it never has to wait for us, and supervise the run."""
    if os.fork():
        os._exit(0)
    layout = RunLayout(Path(sys.argv[-1]))
    signals = Signals()
    try:
        run = Run(layout, json.loads(layout.plan.read_bytes()), signals)
        leases = run.open_leases()
    except UserError as error:
        _answer({"error": error.message, "hint": error.hint})
        sys.exit(1)
    run.event("supervisor_started", **vars(this_process()))
    _answer({"job_id": local_job_id(os.getpid())})
    sys.exit(0 if run.supervise(leases) == 0 else 1)


def _answer(message: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the client was killed: its run is on record, and goes on
        os.write(1, json.dumps(message).encode() + b"\n")
    os.dup2(2, 1)


class Run:
    def __init__(self, layout: RunLayout, plan: dict[str, Any], signals: Signals) -> None:
        self._layout = layout
        self._plan = plan
        self._signals = signals
        self._wanted = int(plan["gpus_per_node"])
        self._shared = bool(layout.events.stat().st_mode & 0o020)
        self._path = layout.events / "supervisor.jsonl"
        self._events = Events(self._path, 0o660 if self._shared else 0o600)
        restart = plan["restart"]
        self._policy = Policy(
            int(restart.get("max", 0)), restart.get("on", ()), float(restart.get("backoff", 0))
        )
        self._submission = newest_submission(layout.root)
        self._replaced = False

    def event(self, kind: str, **fields: Any) -> None:
        self._events.append(kind, **fields)

    def open_leases(self) -> Leases | None:
        """None for a run on CPU. Raises UserError where waiting would be for ever."""
        if not self._wanted:
            return None
        devices, reason = self._devices()
        if len(devices) < self._wanted:
            raise UserError(
                f"The run wants {self._wanted} GPUs and can see {len(devices)}"
                + (f": {reason}" if reason else "."),
                hint="Type `ptx gpus`; CUDA_VISIBLE_DEVICES may hide some.",
            )
        return Leases(lease_folder())

    def supervise(self, leases: Leases | None) -> int:
        """The agent's exit code, minus the signal's number where one ended it; -SIGTERM where
        the end was asked for before it started. One that gives way to another writes no end: it
        would be the other's."""
        end: dict[str, Any] = {"rc": 1}
        try:
            lease = self._bind(leases) if leases else Lease({})
            if lease is None or self._signals.stop:
                end = {"rc": -int(signal.SIGTERM), "message": STOPPED}
            else:
                end = {"rc": self._run_attempts(lease)}
        finally:
            if not self._gives_way():
                self.event("supervisor_ended", **end)
        return int(end["rc"])

    def _devices(self) -> tuple[tuple[Device, ...], str | None]:
        found = inventory()
        return visible(found.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")), found.reason

    def _bind(self, leases: Leases) -> Lease | None:
        """Wait for this run's turn and enough free devices; None when asked to stop, and when
        another has this run."""
        holder = Holder(self._layout.run_id, os.getpid())
        devices, _ = self._devices()
        waiting = False
        with leases.queue({device.uuid for device in devices}) as ticket:
            while not self._signals.stop and not self._gives_way():
                idle = [device.uuid for device in devices if device.idle]
                if lease := leases.acquire(ticket, idle, self._wanted, holder):
                    self.event("gpus_bound", devices=lease.devices)
                    return lease
                if not waiting:
                    free = set(idle) - leases.holders().keys()
                    self.event("waiting_for_gpus", wanted=self._wanted, free=len(free))
                    waiting = True
                self._signals.pause(POLL_SECONDS)
                devices, _ = self._devices()
        return None

    def _run_attempts(self, lease: Lease) -> int:
        """One after another, until one is the last; that one's exit code."""
        become_subreaper()
        retries = 0
        while not self._gives_way():
            attempt = begin_attempt(self._layout.root, shared=self._shared)
            self.event(
                "job_started", job_id=local_job_id(os.getpid()), attempt=attempt, host=host_name()
            )
            begun = time.monotonic()
            agent = LocalAgent(self._layout, self._plan, attempt, lease.devices)
            code = agent.wait(self._signals, lease.refresh)
            verdict = self._judge(attempt, time.monotonic() - begun, agent.lifeless)
            record_end(self._events, attempt, verdict)
            if not verdict.retry:
                if not self._gives_way():  # else they are the resumption's
                    self._layout.secrets.unlink(missing_ok=True)
                return code or int(verdict.name == "cancelled")
            self._pause(pause(self._policy, retries), lease)
            if self._signals.stop:
                return code or 1
            retries += 1
        return 1

    def _gives_way(self) -> bool:
        """Whether the run was resumed meanwhile: while nothing runs there is no heartbeat, and a
        `ptx resume` typed on another machine cannot see that somebody is here. Two would train
        over each other. A file server that fails for a moment says nothing."""
        with suppress(OSError):
            if not self._replaced and newest_submission(self._layout.root) > self._submission:
                tell(REPLACED)
                self._replaced = True
        return self._replaced

    def _judge(self, attempt: int, lasted: float, lifeless: Mapping[int, float]) -> Verdict:
        left = read_nodes(self._layout.root, attempt)
        evidence = Evidence(
            [host_name()],
            left.ended,
            len(left.started),
            told="cancelled" if self._signals.stop else None,
            seconds=lasted,
            lifeless=lifeless,
        )
        verdict = judge(evidence, past_of(read_events(self._path)), self._policy)
        return verdict._replace(nodes_failed=[])  # there is no other machine to go to

    def _pause(self, lasts: float, lease: Lease) -> None:
        end = time.monotonic() + lasts
        while not self._signals.stop and (left := end - time.monotonic()) > 0:
            self._signals.pause(left)
            lease.refresh()
