"""The shim of one rank: runs it, stamps its output into its log, records how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping

from orchestrator.agent.devices import own_device, rank_environment
from orchestrator.agent.ending import SHIM, STEP, Ending
from orchestrator.agent.guard import Guard
from orchestrator.agent.linux import (
    become_subreaper,
    keep_freed_memory,
    set_name,
    set_parent_death_signal,
)
from orchestrator.agent.log_limits import limits_from
from orchestrator.agent.outputs import Outputs
from orchestrator.agent.processes import Process, descendants, process_table
from orchestrator.agent.rank_log import RankLog
from orchestrator.agent.rank_process import RankProcess
from orchestrator.agent.stamp import BLOCK, Clock, Stamper
from orchestrator.agent.stderr import tell

_DRAIN = 2.0
"""Seconds that output may still come through pipes which a grandchild keeps open. What the rank
itself wrote is read however long that takes."""
_POLL = 0.5
_BATCH = 0.001
"""Seconds to wait before reading on where little came: a thousand wake-ups a second at most."""
_HELD = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
"""Sent to launchers' process groups; they are the rank's business, and the shim outlives it."""
_EXIT_NOT_FOUND = 127
_EXIT_NOT_EXECUTABLE = 126


class Shim:
    """One rank from start to exit record."""

    def __init__(self, argv: list[str], env: Mapping[str, str]) -> None:
        self._argv = argv
        self._env = env
        self._rank = int(env.get("RANK") or 0)
        self._base = f"{env['PTX_NODE_DIR']}/rank-{self._rank:05d}"
        self._mode = _file_mode(env["PTX_NODE_DIR"])
        self._log = RankLog(f"{self._base}.log", self._mode, limits_from(env))
        self._clock = Clock()
        self._poller = select.poll()
        self._outputs = Outputs(self._poller, self._log, self._clock)
        self._guard = Guard(env)
        self._orphaned_by: str | None = None
        self._ending: Ending | None = None
        self._gave_up = False
        self._next_step = 0.0
        self._process = RankProcess()
        self._drain_until = 0.0
        self._told_of_loss = False

    def run(self, mask: set[int]) -> int:
        """Everything; the exit code to end with. `mask`: the blocked signals of the rank."""
        self._forget_earlier_start()
        wake = _wake_on_signals()
        for descriptor in (wake, *self._guard.descriptors):
            self._poller.register(descriptor, select.POLLIN)
        code = self._start(mask)
        if code is None:
            while not self._finished():
                self._turn(wake)
            self._drain()
            self._outputs.close()
            code = self._process.code
        self._record(code)
        self._log.close()
        return code if code >= 0 else 128 - code

    def _forget_earlier_start(self) -> None:
        """A launcher that restarts its ranks starts a new shim beside the old one's record."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._base}.exit.json")  # noqa: PTH108 - see the package's docstring

    def _start(self, mask: set[int]) -> int | None:
        """Start the rank; an exit code where it cannot be run at all."""
        ends = self._outputs.open(self._env)
        try:
            self._process.start(self._argv, rank_environment(self._env), mask, *ends)
        except OSError as error:
            return self._cannot_start(error)
        finally:
            for descriptor in ends:
                os.close(descriptor)
        return None

    def _cannot_start(self, error: OSError) -> int:
        sentence = f"cannot run {self._argv[0]!r}: {error.strerror}"
        line = f"ptx: {sentence}\n".encode("utf-8", "replace")
        self._log.write(Stamper(b"e").feed(line, self._clock.stamp()))
        tell(sentence)
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return _EXIT_NOT_FOUND if missing else _EXIT_NOT_EXECUTABLE

    def _turn(self, wake: int) -> None:
        ready = [descriptor for descriptor, _ in self._poller.poll(self._timeout())]
        small = False
        if wake in ready and self._rank_ended(wake):
            self._drain()
            self._drain_until = time.monotonic() + _DRAIN
        else:  # who finds the pipes drained would wait at them
            small = self._outputs.read(ready)
        self._outputs.flush_silent()
        self._watch(died=any(descriptor in self._guard.descriptors for descriptor in ready))
        self._tell_of_loss()
        if small:
            time.sleep(_BATCH)

    def _rank_ended(self, wake: int) -> bool:
        """Whether it was the rank's end that woke us."""
        os.read(wake, 512)
        return self._process.reap()

    def _drain(self) -> None:
        """The last words of a rank that has ended may lie behind a megabyte, for which a slow file
        server takes longer than a grandchild may hold the shim up, and also longer than whoever
        ends the run lets a shim live: where there is much to log, the record comes first."""
        if self._outputs.take() > BLOCK:
            self._record(self._process.code)
        self._outputs.log_taken()

    def _timeout(self) -> float:
        """Milliseconds until something is due."""
        now = time.monotonic()
        flush = self._outputs.flush_at()
        due = [] if flush is None else [flush]
        if self._process.has_ended:
            due.append(self._drain_until)
        if self._ending is not None:
            due.append(self._next_step)
        elif not self._guard.complete:
            due.append(now + _POLL)
        return max(0.0, min(due) - now) * 1000 + 1 if due else 60_000

    def _watch(self, *, died: bool) -> None:
        """Once agent or launcher is dead, end what this rank has started."""
        if self._ending is None and (died or not self._guard.complete):
            self._orphaned_by = self._guard.dead()
            if self._orphaned_by is not None:
                for descriptor in self._guard.descriptors:
                    self._poller.unregister(descriptor)
                self._ending = Ending(_below, grace_seconds(self._env), with_launcher=False)
        if self._ending is not None and time.monotonic() >= self._next_step:
            self._gave_up = self._ending.step() and bool(self._ending.left)
            self._next_step = time.monotonic() + STEP

    def _finished(self) -> bool:
        if self._gave_up:
            return True
        if not self._process.has_ended or (self._ending is not None and self._ending.left):
            return False
        return not self._outputs or time.monotonic() >= self._drain_until

    def _tell_of_loss(self) -> None:
        if self._log.first_error is not None and not self._told_of_loss:
            self._told_of_loss = True
            tell(
                f"cannot write {self._base}.log: {self._log.first_error}; "
                "the rank goes on and its exit record counts what is lost"
            )

    def _record(self, code: int) -> None:
        # Imported only now: the rank was not made to wait for it.
        from orchestrator.agent.exit_record import find_exception, write_record

        record: dict[str, object] = {
            "v": 1,
            "run_id": self._env.get("PTX_RUN_ID"),
            "attempt": int(self._env.get("PTX_ATTEMPT") or 0),
            "node": int(self._env.get("PTX_NODE_RANK") or 0),
            "host": os.uname().nodename,
            "rank": self._rank,
            "local_rank": int(self._env.get("LOCAL_RANK") or 0),
            "world_size": int(self._env.get("WORLD_SIZE") or 1),
            "pid": self._process.pid,
            "started": round(self._process.started, 6),
            "ended": round(self._process.ended, 6),
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "exception": find_exception(self._outputs.stderr) if code else None,
            "last_lines": self._log.last_lines(20),
            "device": own_device(self._env),
            "max_rss_bytes": self._process.max_rss_bytes,
            "log_bytes": self._log.log_bytes,
            "lost_bytes": self._log.lost_bytes,
            "dropped_bytes": self._log.dropped_bytes,
            "orphaned_by": self._orphaned_by,
        }
        try:
            write_record(f"{self._base}.exit.json", record, self._mode)
        except OSError as error:
            tell(f"cannot write {self._base}.exit.json: {error.strerror}")


def grace_seconds(env: Mapping[str, str]) -> float:
    """The plan's, read when it is needed: with the agent gone nobody else knows it."""
    import json

    try:
        with open(env["PTX_PLAN"], "rb") as file:  # noqa: PTH123 - see the package's docstring
            return float(json.load(file)["grace_seconds"])
    except (OSError, KeyError, ValueError, TypeError):
        return 10.0


def _file_mode(folder: str) -> int:
    """As private as the folder, whatever umask the setup lines have left."""
    try:
        shared = os.stat(folder).st_mode & 0o020  # noqa: PTH116 - see the package's docstring
    except OSError:
        return 0o600
    return 0o660 if shared else 0o600


def _below() -> list[Process]:
    return descendants(os.getpid(), process_table())


def _wake_on_signals() -> int:
    """A descriptor that becomes readable when a child ended or SIGTERM came.

    SIGTERM only wakes: launchers and agent send it to the rank too, and the shim lives on to
    record how the rank took it.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGTERM))
    return reading


def run_shim(argv: list[str]) -> int:
    """Run `argv` as this rank; its exit code, 128 + n where signal n ended it."""
    if "PTX_NODE_DIR" not in os.environ:
        tell("the shim finds no PTX_NODE_DIR; only an agent's launcher can start it")
        return 2
    inherited = signal.pthread_sigmask(signal.SIG_BLOCK, (*_HELD, signal.SIGTERM))
    for number in (0, 1, 2):
        _ensure_open(number)
    set_name(SHIM)
    keep_freed_memory(16 * BLOCK)
    become_subreaper()
    set_parent_death_signal(signal.SIGTERM)
    # The agent blocks SIGTERM for the launcher's sake. SIGUSR2 stays blocked in the rank:
    # SLURM sends that warning to every process, and it would end those that do not expect it.
    mask = (set(inherited) - {signal.SIGTERM}) | {signal.SIGUSR2}
    return Shim(argv, os.environ).run(mask)


def _ensure_open(number: int) -> None:
    """Descriptors 0 to 2 must exist, or the pipes would get these numbers."""
    try:
        os.fstat(number)
    except OSError:
        os.open("/dev/null", os.O_RDWR)
