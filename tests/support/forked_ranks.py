"""Ranks that need not import torch first, since they are forked: tens of them in a second."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

SERVER = Path(__file__).with_name("rank_server.py")
SERVERS = 2
"""Strings have other hashes in each, as in processes that were started: what comes out of a set
comes in another order."""


class Server:
    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        checkout = SERVER.parent.parent.parent
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PTX_")},
            "PYTHONPATH": os.pathsep.join((str(checkout), str(checkout / "tests"))),
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, SERVER, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=env
        )
        theirs.close()
        self._running: set[int] = set()
        self._statuses: dict[int, int] = {}
        atexit.register(self.close)

    def close(self) -> None:
        self._control.close()
        self._process.wait()

    def fork(
        self, script: Path, args: Sequence[str], env: dict[str, str], out: IO[str], err: IO[str]
    ) -> int:
        """Start a rank that writes to these files; its pid."""
        request = {"script": str(script), "args": args, "env": env, "cwd": str(Path.cwd())}
        numbers = [out.fileno(), err.fileno()]
        socket.send_fds(self._control, [json.dumps(request).encode()], numbers)
        while not isinstance(answer := self._answer(), int):
            self._note(answer)
        self._running.add(answer)
        return answer

    def wait(self, pid: int, end: float) -> int:
        """Its exit code, as subprocess gives it. TimeoutError: it lives at `end` of the monotonic
        clock."""
        while pid not in self._statuses:
            if not select.select([self._control], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"rank with pid {pid} did not end")
            self._note(self._answer())
        self._running.remove(pid)
        return os.waitstatus_to_exitcode(self._statuses.pop(pid))

    def kill(self, pid: int) -> None:
        """End it, unless it has been waited for."""
        if pid in self._running:
            self._control.send(json.dumps(pid).encode())
            self.wait(pid, time.monotonic() + 60)

    def _answer(self) -> Any:
        message = self._control.recv(1 << 10)
        assert message, f"the server of ranks ended with {self._process.wait()}"
        return json.loads(message)

    def _note(self, ended: list[int]) -> None:
        pid, status = ended
        self._statuses[pid] = status


@functools.cache
def server(rank: int) -> Server:
    """The one that forks this rank."""
    return Server() if rank < SERVERS else server(rank % SERVERS)
