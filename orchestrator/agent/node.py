"""The agent of one node: starts launch.sh, watches it, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.checks import problems
from orchestrator.agent.ending import STEP, Ending
from orchestrator.agent.environment import launch_environment
from orchestrator.agent.events import Events
from orchestrator.agent.files import last_line, open_log
from orchestrator.agent.heartbeat import Heartbeat
from orchestrator.agent.linux import become_subreaper, set_name, set_parent_death_signal
from orchestrator.agent.place import NotStartable, Place, read_plan
from orchestrator.agent.processes import (
    Process,
    ancestors,
    bearers,
    descendants,
    process_table,
    read_process,
)
from orchestrator.agent.ranks import (
    Record,
    code_of,
    first_failure,
    outcome,
    read_records,
    signal_name,
    told_to_end,
)
from orchestrator.agent.spawn import spawn
from orchestrator.agent.stderr import SAID, tell
from orchestrator.agent.watch import RankWatch, shims_by_rank

_TICK = 0.5
_LAUNCHER_SECONDS = 15.0
"""How long a launcher has, once a rank has failed, to end the others by itself."""
_FAILURE_GRACE = 8.0
"""The most that the ranks get then: all is to be over 30 s after the failure."""
_RECORD_SECONDS = 5.0
"""How long shims may take to leave their records once the launcher is gone."""
_STRAY_GRACE = 2.0
"""For what a rank left behind."""
_OVER = ("completed", "rank-failed")
"""Nothing starts such a run again, so its secrets go. SLURM may requeue one that was told to end,
and where no rank ran other nodes may not have read them yet."""
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAITED = {*_STOP, signal.SIGUSR2, signal.SIGCHLD}
_BLOCKED_BELOW = {signal.SIGTERM, signal.SIGUSR2}
"""SLURM sends these to every process of a step; launchers die of them. The shim undoes it."""


class Node:
    """One attempt on one node."""

    def __init__(self, place: Place, plan: Mapping[str, Any], parent: int | None) -> None:
        self._place = place
        self._plan = plan
        self._parent = parent
        self._events = Events(place.events, place.file_mode)
        self._log = open_log(place.node_dir / "launcher.log", place.file_mode)
        self._heartbeat = Heartbeat(place.node_dir / "heartbeat", place.file_mode)
        self._watch = RankWatch(place.node_dir)
        self._start = _own_start()
        self._launcher: int | None = None
        self._launcher_status: int | None = None
        self._stop_signal: str | None = None
        self._failed_at: float | None = None
        self._ended_at: float | None = None
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
            return self._node_ended("check-failed", {}, None, complete=False)
        self._follow()
        self._end()
        return self._conclude()

    def _launch(self) -> None:
        env = launch_environment(self._place, self._plan, os.environ)
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

    def _follow(self) -> None:
        """Until the launcher has ended, somebody wants the end, or a failure was left unmet."""
        while not self._launcher_ended() and self._stop_signal is None:
            self._wait(_TICK)
            if self._failed_at is None and self._watch.poll():
                self._failed_at = time.monotonic()
            if self._overdue():
                self._say("a rank has failed and the launcher goes on; ending everything")
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
        grace = float(self._plan["grace_seconds"])
        if by_itself and not shims_by_rank():
            grace = min(grace, _STRAY_GRACE)
        elif self._failed_at is not None:
            grace = min(grace, _FAILURE_GRACE)
        if not by_itself:
            self._ended_at = time.time()
        ending = Ending(self._sweep_set, grace)
        while not ending.step():
            self._wait(STEP)
        if ending.left:
            names = ", ".join(f"{process.pid} ({process.name})" for process in ending.left)
            self._say(f"these processes survive SIGKILL, they hang in the kernel: {names}")

    def _await_shims(self) -> None:
        deadline = time.monotonic() + _RECORD_SECONDS
        while time.monotonic() < deadline and self._stop_signal is None and shims_by_rank():
            self._wait(STEP)

    def _sweep_set(self) -> list[Process]:
        """What this agent has started, and what bears its mark though it got away."""
        table = process_table()
        ours = {process.pid: process for process in descendants(os.getpid(), table)}
        young = [
            process
            for process in table.values()
            if process.start >= self._start and process.pid not in ours
        ]
        for process in bearers(self._place.mark, young):
            ours[process.pid] = process
        for pid in ancestors(os.getpid(), table):
            ours.pop(pid, None)
        return list(ours.values())

    def _wait(self, seconds: float) -> None:
        """Sleep, or less where a signal or the end of a child comes; keep the books."""
        received = signal.sigtimedwait(_WAITED, seconds)
        while received is not None:
            self._take(received.si_signo)
            received = signal.sigtimedwait(_WAITED, 0)
        if self._parent is not None and os.getppid() != self._parent:
            self._stop_signal = self._stop_signal or "the supervisor's death"
        self._reap()
        self._heartbeat.beat_if_due()

    def _take(self, number: int) -> None:
        if number in _STOP:
            self._stop_signal = self._stop_signal or signal_name(number)
        elif number == signal.SIGUSR2:
            self._events.append("signal", name="SIGUSR2")

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

    def _launcher_ended(self) -> bool:
        return self._launcher_status is not None

    def _conclude(self) -> int:
        records = read_records(self._place.node_dir)
        expected = int(self._plan["procs_per_node"])
        first = first_failure(records, self._ended_at)
        stopped = self._stop_signal is not None and self._ended_at is not None
        if stopped and first is not None and told_to_end(records[first["rank"]]):
            first = None  # SLURM's SIGTERM reached the rank before it reached the agent
        reason = outcome(
            records,
            expected,
            terminated=stopped and first is None,
            launched=self._place.launching.exists(),
        )
        if reason in ("setup-failed", "launch-failed"):
            self._tell_launch_failure(reason)
        elif reason == "terminated":
            self._message = f"ended by {self._stop_signal}"
        complete = len(records) >= expected and not any(map(code_of, records.values()))
        return self._node_ended(reason, records, first, complete=complete)

    def _tell_launch_failure(self, reason: str) -> None:
        """How it ended into the log; why, as the log's last line has it, into node_ended too."""
        why = last_line(self._place.node_dir / "launcher.log")
        how, failed = self._launcher_end(reason)
        self._say(how)
        if not failed or not why:
            return
        if not why.startswith(SAID):
            self._message = f"{how}: {why}"
        elif (
            reason == "setup-failed"
        ):  # once it is the launcher, its last word was that all is well
            self._message = why.removeprefix(SAID)

    def _launcher_end(self, reason: str) -> tuple[str, bool]:
        """In one sentence how it ended, and whether that was by itself with a code of failure."""
        what = "launch.sh" if reason == "setup-failed" else "the launcher"
        status = self._launcher_status
        if status is None or self._ended_at is not None:
            return f"{what} was ended because a rank's shim vanished", False
        code = os.waitstatus_to_exitcode(status)
        how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
        when = " before it came to the launcher" if reason == "setup-failed" else ""
        return f"{what} {how}{when}", code > 0

    def _node_ended(
        self,
        reason: str,
        records: Mapping[int, Record],
        first: Mapping[str, Any] | None,
        *,
        complete: bool,
    ) -> int:
        code = 0 if complete else 1
        self._events.append(
            "node_ended",
            attempt=self._place.attempt,
            node=self._place.node_rank,
            rc=code,
            reason=reason,
            ranks={str(rank): code_of(records[rank]) for rank in sorted(records)},
            first_failure=first,
            message=self._message,
        )
        if self._place.node_rank == 0 and reason in _OVER:
            with contextlib.suppress(OSError):
                (self._place.run_dir / "secrets").unlink(missing_ok=True)
        return code

    def _say(self, sentence: str) -> None:
        """To the launcher's log, to whoever reads the scheduler's, and into node_ended."""
        self._message = sentence
        for line in sentence.splitlines():
            tell(line)
            with contextlib.suppress(OSError):  # a full disk: stderr has it
                os.write(self._log, f"{SAID}{line}\n".encode("utf-8", "replace"))


def _own_start() -> int:
    myself = read_process(os.getpid())
    return myself.start if myself else 0


def run_node(plan_path: str, *, parent_death: bool, parent: int) -> int:
    """Run this node's part; 0 only when every local rank's exit record says 0.

    With `parent_death` the end of the parent process (`parent`, else whoever it is now) is an
    order to end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    expected = parent or os.getppid()
    if parent_death:
        set_parent_death_signal(signal.SIGTERM)
    set_name("ptx-agent")
    become_subreaper()
    try:
        path = Path(plan_path).absolute()
        plan = read_plan(path)
        place = Place(path, plan, os.environ)
        os.umask(0o007 if place.shared else 0o077)
        place.make_folders()
        node = Node(place, plan, expected if parent_death else None)
    except (NotStartable, OSError) as error:
        tell(str(error))
        return 1
    return node.run()
