"""The agent of one node: starts launch.sh, watches it, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.agent.abort import take_stacks
from orchestrator.agent.checks import problems
from orchestrator.agent.conclusion import Conclusion, Seen, conclude
from orchestrator.agent.deputy import Deputy
from orchestrator.agent.ending import STEP, Ending
from orchestrator.agent.environment import launch_environment
from orchestrator.agent.events import Events
from orchestrator.agent.files import open_log
from orchestrator.agent.hang import Hang
from orchestrator.agent.heartbeat import Heartbeat
from orchestrator.agent.leftover import Leftover
from orchestrator.agent.place import NotStartable, Place
from orchestrator.agent.processes import Process, read_process
from orchestrator.agent.ranks import code_of, signal_name
from orchestrator.agent.sampler import Sampler
from orchestrator.agent.spawn import spawn
from orchestrator.agent.stderr import SAID, tell
from orchestrator.agent.stopping import Stopping
from orchestrator.agent.sweep import sweep_set
from orchestrator.agent.watch import RankWatch, shims_by_rank

_TICK = 0.5
_LAUNCHER_SECONDS = 15.0
"""How long a launcher has, once a rank has failed, to end the others by itself."""
_FAILURE_GRACE = 8.0
"""The most that the ranks get then: all is to be over 30 s after the failure."""
_RECORD_SECONDS = 5.0
"""How long shims may take to leave their records once the launcher is gone."""
_PACK_SECONDS = 30.0
"""The most that packing logs may keep the next attempt waiting, which needs this node."""
_STRAY_GRACE = 2.0
"""For what a rank left behind."""
_REQUEUE_SECONDS = 30.0
"""Of the time between SLURM's warning and the limit, what the end of this node and the way back
into the queue may take; a quarter of it where that is less."""
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAITED = {*_STOP, signal.SIGUSR2, signal.SIGCHLD}
"""Signals that the process of a node keeps blocked and waits for."""
_BLOCKED_BELOW = {signal.SIGTERM, signal.SIGUSR2}
"""SLURM sends these to every process of a step; launchers die of them. The shim undoes it."""


class Node:
    """One attempt on one node."""

    def __init__(self, place: Place, plan: Mapping[str, Any], parent: int | None) -> None:
        self._place = place
        self._plan = plan
        self._parent = parent
        self._restart: Mapping[str, Any] = plan.get("restart") or {}
        self._events = Events(place.events, place.file_mode)
        self._log = open_log(place.node_dir / "launcher.log", place.file_mode)
        self._heartbeat = Heartbeat(place.node_dir / "heartbeat", place.file_mode)
        self._watch = RankWatch(place.node_dir)
        self._stopping = Stopping()
        self._hang = Hang(place.node_dir, place.node_rank, plan, self._stopping.step_file)
        self._leftover = Leftover(place.node_dir, place.node_rank, plan)
        self._deputy = Deputy(place, plan, self._events)
        self._sampler = Sampler()
        self._start = _own_start()
        self._launcher: int | None = None
        self._launcher_status: int | None = None
        self._stop_signal: str | None = None
        self._stop_by: float | None = None
        self._failed_at: float | None = None
        self._ended_at: float | None = None
        self._hung = False
        self._message: str | None = None

    def run(self) -> int:
        """From node_started to node_ended; the agent's exit code."""
        self._events.append(
            "node_started",
            attempt=self._place.attempt,
            node=self._place.node_rank,
            host=os.uname().nodename,
            pid=os.getpid(),
        )
        self._heartbeat.beat_if_due()
        try:
            self._launch()
        except NotStartable as error:
            self._say(str(error))
            ending = Conclusion("check-failed", {}, None, None, None, complete=False)
        else:
            self._follow()
            self._end()
            self._sampler.end()
            ending = conclude(self._place.node_dir, int(self._plan["procs_per_node"]), self._seen())
        code = self._node_ended(ending)
        self._stopping.remove()
        self._deputy.say_farewell()
        self._compress_logs(_PACK_SECONDS if code else math.inf)
        return code

    def _launch(self) -> None:
        env = launch_environment(self._place, self._plan, os.environ)
        env.update(self._stopping.environment)
        found = list(problems(self._plan, os.environ))
        if found:
            raise NotStartable("\n".join(found))
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._launcher = spawn(
                ["bash", str(self._place.bundle / "launch.sh")],
                env,
                mask=_BLOCKED_BELOW,
                stdin=nothing,
                stdout=self._log,
                stderr=self._log,
                new_session=True,
            )
        except OSError as error:
            raise NotStartable(f"bash cannot be started: {error.strerror}") from error
        finally:
            os.close(nothing)
        ranks = int(self._plan["procs_per_node"])
        devices = env.get("PTX_DEVICES")
        self._sampler.start(self._place.node_dir, self._place.file_mode, ranks, devices)

    def _follow(self) -> None:
        """Until the launcher has ended, somebody wants the end, or a failure was left unmet."""
        while not self._launcher_ended() and self._stop_signal is None:
            self._wait(_TICK)
            stopping = self._stopping.asked is not None
            if self._failed_at is None and self._watch.poll(stopping=stopping):
                self._failed_at = time.monotonic()
            if self._overdue():
                self._say("a rank has failed and the launcher goes on; ending everything")
                return
            if self._stop_by is not None and time.monotonic() > self._stop_by:
                self._say("the time limit is near and the ranks go on; ending everything")
                return
            ended = self._watch.all_fine(int(self._plan["procs_per_node"]))
            if self._leftover.poll(ended=ended):
                self._say("all ranks have ended and the launcher goes on; ending it")
                return
            # Ranks that were asked to stop may save for as long as they need.
            over = self._leftover.over or self._stopping.asked is not None
            if not over and self._hang.poll(ended=ended):
                self._hung = True
                self._say(self._hang.message)
                take_stacks(self._wait, others=int(self._plan.get("nodes") or 1) > 1)
                return

    def _overdue(self) -> bool:
        return (
            self._failed_at is not None and time.monotonic() > self._failed_at + _LAUNCHER_SECONDS
        )

    def _end(self) -> None:
        """Leave no process of this run on this node."""
        by_itself = self._launcher_ended()
        if by_itself:
            self._await_shims()
        grace = _grace(self._plan)
        if by_itself and not shims_by_rank():
            grace = min(grace, _STRAY_GRACE)
        elif self._failed_at is not None or self._hung:
            grace = min(grace, _FAILURE_GRACE)
        if not by_itself:
            self._ended_at = time.time()
        ending = Ending(self._sweep_set, grace)
        while not ending.step():
            self._wait(STEP)
        self._wait(0)  # a SIGTERM that came at the same time explains how the ranks ended
        if ending.left:
            names = ", ".join(f"{process.pid} ({process.name})" for process in ending.left)
            self._say(f"these processes survive SIGKILL, they hang in the kernel: {names}")

    def _await_shims(self) -> None:
        deadline = time.monotonic() + _RECORD_SECONDS
        while time.monotonic() < deadline and self._stop_signal is None and shims_by_rank():
            self._wait(STEP)

    def _sweep_set(self) -> list[Process]:
        return sweep_set(self._place.mark, self._start, besides=self._sampler.process)

    def _wait(self, seconds: float) -> None:
        """Sleep, or less where a signal or the end of a child comes; keep the books."""
        received = signal.sigtimedwait(WAITED, seconds)
        while received is not None:
            self._take(received.si_signo)
            received = signal.sigtimedwait(WAITED, 0)
        if self._parent is not None and os.getppid() != self._parent:
            self._stop_signal = self._stop_signal or "the supervisor's death"
        self._deputy.look()
        self._reap()
        self._heartbeat.beat_if_due()

    def _take(self, number: int) -> None:
        if number in _STOP:
            self._stop_signal = self._stop_signal or signal_name(number)
            self._ask_to_stop("terminated", _grace(self._plan))
        elif number == signal.SIGUSR2:
            self._events.append("signal", name="SIGUSR2")
            warning = self._restart.get("warning")
            if self._stopping.asked is None:
                self._ask_to_stop("time-limit", warning)
            if warning is not None and self._stop_by is None:
                left = warning - min(_REQUEUE_SECONDS, warning / 4)
                self._stop_by = time.monotonic() + left

    def _ask_to_stop(self, reason: str, seconds: float | None) -> None:
        try:
            self._stopping.ask(reason, None if seconds is None else time.time() + seconds)
        except OSError as error:
            self._say(f"the ranks cannot be asked to stop: {error.strerror}")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._launcher:
                self._launcher_status = status
            self._sampler.reaped(pid)

    def _launcher_ended(self) -> bool:
        return self._launcher_status is not None

    def _compress_logs(self, seconds: float) -> None:
        """For so long at most: what was not packed stays as it is. What is told to end, ends."""
        if not (self._plan.get("logging") or {}).get("compress"):
            return
        from orchestrator.agent.compress import compress_logs

        deadline = time.monotonic() + seconds

        def go_on() -> bool:
            self._wait(_TICK)
            told = self._stop_signal is not None or self._stopping.asked is not None
            return not told and time.monotonic() < deadline

        os.nice(10)
        problem = compress_logs(self._place.node_dir, self._place.file_mode, go_on)
        if problem is not None:
            tell(problem)

    def _seen(self) -> Seen:
        return Seen(
            launched=self._place.launching.exists(),
            launcher_status=self._launcher_status,
            ended_at=self._ended_at,
            stop_signal=self._stop_signal,
            asked=self._stopping.asked,
            hung=self._hung,
        )

    def _node_ended(self, ending: Conclusion) -> int:
        if ending.said is not None:
            self._say(ending.said)
        # srun ends the other nodes when one ends with a failure: they may not have saved yet.
        code = 0 if ending.complete or ending.reason == "stopped" else 1
        self._events.append(
            "node_ended",
            attempt=self._place.attempt,
            node=self._place.node_rank,
            rc=code,
            reason=ending.reason,
            ranks={str(rank): code_of(ending.records[rank]) for rank in sorted(ending.records)},
            first_failure=ending.first,
            **self._stopping.progress,
            message=ending.message or self._message,
        )
        return code

    def _say(self, sentence: str) -> None:
        """To the launcher's log, to whoever reads the scheduler's, and into node_ended."""
        self._message = sentence
        for line in sentence.splitlines():
            tell(line)
            with contextlib.suppress(OSError):  # a full disk: stderr has it
                os.write(self._log, f"{SAID}{line}\n".encode("utf-8", "replace"))


def _grace(plan: Mapping[str, Any]) -> float:
    """Seconds for the ranks after SIGTERM: what SLURM leaves, where the supervisor knows it."""
    given = os.environ.get("PTX_GRACE", "") if plan["scheduler"] != "local" else ""
    return float(given or plan["grace_seconds"])


def _own_start() -> int:
    myself = read_process(os.getpid())
    return myself.start if myself else 0
