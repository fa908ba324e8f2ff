"""Start a program as this process's child, as a rule one that dies with this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping

from orchestrator.agent.linux import set_parent_death_signal

_TO_DEFAULT = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
"""Python, submitit and `bash &` leave some of these ignored, and that survives exec."""


def spawn(
    argv: list[str],
    env: Mapping[str, str],
    *,
    mask: Iterable[int],
    stdout: int,
    stderr: int,
    stdin: int = 0,
    new_session: bool = False,
    tied: bool = True,
) -> int:
    """The pid of the new child, which has `mask` as its blocked signals. `tied`: it is killed when
    this process ends.

    Raises OSError, as exec did, when the program cannot be run.
    """
    parent = os.getpid()
    told, tell = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        # subprocess is not used: it cannot set the death signal between fork and exec without
        # running Python there anyway, and its import costs each rank's shim 10 ms.
        pid = os.fork()
        if pid == 0:
            _become(argv, env, parent, (stdin, stdout, stderr), set(mask), new_session, tied, tell)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(tell)
    try:
        failure = os.read(told, 16)
    finally:
        os.close(told)
    if failure:
        os.waitpid(pid, 0)
        number = int(failure)
        raise OSError(number, os.strerror(number), argv[0])
    return pid


def _become(
    argv: list[str],
    env: Mapping[str, str],
    parent: int,
    standard: tuple[int, int, int],
    mask: set[int],
    new_session: bool,
    tied: bool,
    tell: int,
) -> None:
    """The child between fork and exec; never returns."""
    number = 0
    try:
        signal.set_wakeup_fd(-1)  # it is shared with the parent until exec
        if new_session:
            os.setsid()
        if tied:
            set_parent_death_signal(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
        for target, descriptor in enumerate(standard):
            os.dup2(descriptor, target)
        for default in _TO_DEFAULT:
            signal.signal(default, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(argv[0], argv, env)  # noqa: S606 - an argument list; no shell is wanted
    except OSError as error:
        number = error.errno or 1
    except ValueError:
        number = 22  # EINVAL: a NUL in an argument or in the environment
    finally:
        os.write(tell, str(number or 1).encode())
        os._exit(127)
