"""The thread between a job's supervisor and the agent of the last node.

The supervisor runs on the batch host. Where that machine dies, SLURM requeues the job; not so
where only its processes died, nor with --no-kill, which leaves an allocation with nobody in it.
The agent at the other end then requeues the job.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Mapping

PORT = "PTX_SUPERVISOR_PORT"
_END, _HEARD = b"end\n", b"heard\n"
_CONNECT = 10.0
_FAREWELL = 15.0
_MOST = 16
"""Connections that are looked after; there is one."""
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
"""A machine without power says nothing: after 30 s of silence it is gone."""


class Anchor:
    """The supervisor's end. `serve` is called now and then and never waits."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("", 0))
        self._listening.setblocking(False)
        self._connections: list[socket.socket] = []
        self.port = int(self._listening.getsockname()[1])

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._connections) < _MOST:
                connection, _ = self._listening.accept()
                connection.setblocking(False)
                self._connections.append(connection)
        for connection in list(self._connections):
            try:
                if connection.recv(len(_END)):
                    connection.sendall(_HEARD)
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            connection.close()
            self._connections.remove(connection)


class Lifeline:
    """The agent's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connection.setblocking(False)

    def lost(self) -> bool:
        """Whether the supervisor's process, or its machine, is gone."""
        try:
            return not self._connection.recv(len(_HEARD))
        except BlockingIOError:
            return False
        except OSError:
            return True

    def farewell(self) -> bool:
        """Say that this node ends; whether the supervisor heard it."""
        try:
            self._connection.sendall(_END)
            deadline = time.monotonic() + _FAREWELL
            while (left := deadline - time.monotonic()) > 0:
                if select.select([self._connection], [], [], left)[0]:
                    return bool(self._connection.recv(len(_HEARD)))
        except OSError:
            return False
        return False


def connect(env: Mapping[str, str], node_rank: int, nodes: int) -> Lifeline | None:
    """For the last node's agent, where it is on another machine than the supervisor, and where
    the supervisor can be reached."""
    address, port = env.get("SLURM_LAUNCH_NODE_IPADDR"), env.get(PORT, "")
    if not address or not port.isdigit() or node_rank != nodes - 1:
        return None
    if env.get("SLURMD_NODENAME") == env.get("PTX_BATCH_HOST"):
        return None
    try:
        return Lifeline(socket.create_connection((address, int(port)), _CONNECT))
    except OSError:
        return None
