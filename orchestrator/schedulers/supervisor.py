"""The process that stays with a local run: it waits for GPUs, holds their lease and starts the
agent, once more where an attempt failed and the spec allows it. It lives as long as the run, so it
imports little.

Started detached, with argv `CODE ROOT RUN_DIR` (see local.py). Its standard output carries one
JSON line to whoever started it, `{"job_id": ...}` or `{"error": ..., "hint": ...}`; what it prints
later goes to standard error, the run's scheduler.log.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.agent.attempts import (
    attempt_numbers,
    begin_attempt,
    past_of,
    read_events,
    read_nodes,
    record_end,
)
from orchestrator.agent.classes import (
    Evidence,
    Policy,
    Verdict,
    judge,
    no_sign_of_life,
    pause,
)
from orchestrator.agent.clients import newest_submission
from orchestrator.agent.ending import Ending
from orchestrator.agent.events import Events
from orchestrator.agent.linux import become_subreaper
from orchestrator.agent.place import mark_of
from orchestrator.agent.processes import Process, bearers, descendants, process_table
from orchestrator.agent.silence import Silence
from orchestrator.agent.stderr import tell
from orchestrator.devices.gpu import Device
from orchestrator.devices.nvml import inventory
from orchestrator.devices.visible import visible
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name, this_process
from orchestrator.schedulers.lease import Holder, Lease, Leases, lease_folder

NODE = 0
POLL_SECONDS = 2.0
REFRESH_SECONDS = 3600.0
END_SECONDS = 18
"""How long the agent may take, beyond the ranks' own grace, before it is killed."""
KILL_AGAIN_SECONDS = 1.0
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


class Signals:
    """SIGTERM as a flag. What a terminal sends goes unheeded through handlers: a signal that
    were ignored would stay ignored in the launcher and the ranks."""

    def __init__(self) -> None:
        self.stop = False
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        for unheeded in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(unheeded, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _ask_to_stop(self, *_: object) -> None:
        self.stop = True

    def pause(self, seconds: float) -> None:
        """Until a signal comes, one that came since the last pause included."""
        if select.select([self._wake], [], [], max(0.0, seconds))[0]:
            os.read(self._wake, 4096)


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
        self._lifeless: Mapping[int, float] = {}

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
            code = self._run_agent(lease, attempt)
            verdict = self._judge(attempt, time.monotonic() - begun)
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

    def _judge(self, attempt: int, lasted: float) -> Verdict:
        left = read_nodes(self._layout.root, attempt)
        told = "cancelled" if self._signals.stop else None
        evidence = Evidence([host_name()], left.ended, len(left.started), told=told, seconds=lasted)
        evidence = evidence._replace(lifeless=self._lifeless)
        verdict = judge(evidence, past_of(read_events(self._path)), self._policy)
        return verdict._replace(nodes_failed=[])  # there is no other machine to go to

    def _pause(self, lasts: float, lease: Lease) -> None:
        end = time.monotonic() + lasts
        while not self._signals.stop and (left := end - time.monotonic()) > 0:
            self._signals.pause(left)
            lease.refresh()

    def _run_agent(self, lease: Lease, attempt: int) -> int:
        agent = self._start_agent(lease, attempt)
        deadline = math.inf
        silence = Silence(self._layout.root, attempt, 1, self._plan["restart"])
        self._lifeless = {}
        while (status := _reaped(agent)) is None:
            now = time.monotonic()
            if self._signals.stop and deadline == math.inf:
                os.kill(agent, signal.SIGTERM)
                deadline = now + self._plan["grace_seconds"] + END_SECONDS
            elif now >= deadline:
                os.kill(agent, signal.SIGKILL)
                deadline = now + KILL_AGAIN_SECONDS
            elif deadline == math.inf and (found := silence.look()):
                tell(no_sign_of_life([host_name()], found))
                self._lifeless, deadline = found, now  # frozen, it hears of nothing but SIGKILL
            due = silence.due() if deadline == math.inf else deadline - now
            self._signals.pause(min(REFRESH_SECONDS, due))
            lease.refresh()
        # The agent leaves nothing when it ends; one that was killed could not see to that.
        end_leftovers(self._layout, self._plan["grace_seconds"], below=os.getpid())
        return os.waitstatus_to_exitcode(status)

    def _start_agent(self, lease: Lease, attempt: int) -> int:
        agent = str(self._layout.bundle / "agent.pyz")
        tie = f"--parent-death={os.getpid()}"
        argv = [sys.executable, "-I", "-S", agent, "node", tie, str(self._layout.plan)]
        bound = {
            "PTX_ATTEMPT": str(attempt),
            "PTX_NODE_RANK": str(NODE),
            # UUIDs mean the same whatever order the CUDA library counts in; "" hides all GPUs
            # from a run on CPU, which holds no lease.
            "CUDA_VISIBLE_DEVICES": ",".join(lease.devices),
        }
        return os.posix_spawn(
            sys.executable,
            argv,
            os.environ | bound,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )


def end_leftovers(layout: RunLayout, grace: float, *, below: int = 0) -> None:
    """End whatever bears the mark of any attempt of the run on this machine, and all descendants
    of `below`: SIGTERM, and after `grace` seconds SIGKILL. Returns when nothing is left."""
    numbers = attempt_numbers(layout.root / "attempts")
    marks = {mark_of(layout.root, layout.run_id, attempt, NODE) for attempt in numbers}

    def left() -> list[Process]:
        table = process_table()
        found = bearers(marks, table.values()) + (descendants(below, table) if below else [])
        return list({process.pid: process for process in found}.values())

    Ending(left, grace).run()


def _reaped(agent: int) -> int | None:
    """Wait status of the agent once it has ended. Orphans that were given to us go too."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == agent:
            found = status
