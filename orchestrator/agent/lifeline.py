"""The thread between a job's supervisor and the agent of the last node.

The supervisor runs on the batch host. Where that machine dies, SLURM requeues the job; not so
where only its processes died, nor with --no-kill, which leaves an allocation with nobody in it.
The agent at the other end then requeues the job. A supervisor that takes the place of one that
was killed listens at the same port.
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
_AGAIN = 2.0
_MOST = 16
"""Connections that are looked after; there is one."""
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
"""A machine without power says nothing: after 30 s of silence it is gone."""


class Anchor:
    """The supervisor's end. `serve` is called now and then and never waits."""

    def __init__(self, port: int = 0) -> None:
        """At `port`, where the agents of a supervisor before this one look for it, as soon as it is
        free; it is, as a rule, for whoever had it before."""
        self._wanted = port
        self._listen(port)
        self._connections: list[socket.socket] = []

    def _listen(self, port: int) -> None:
        try:
            self._listening = socket.create_server(("", port))
        except OSError:
            self._listening = socket.create_server(("", 0))
        self._listening.setblocking(False)
        self.port = int(self._listening.getsockname()[1])

    def stay(self) -> int:
        """Its port, which it keeps from now on: agents are about to be told of it."""
        self._wanted = 0
        return self.port

    def serve(self) -> None:
        if self._wanted and self.port != self._wanted and not self._connections:
            self._listening.close()
            self._listen(self._wanted)
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
    """The agent's end. Raises OSError where the supervisor cannot be reached to begin with."""

    def __init__(self, address: str, port: int) -> None:
        self._where = address, port
        self._connection: socket.socket | None = self._connected(_CONNECT)
        self._torn_at, self._tried_at = 0.0, 0.0

    def torn(self) -> float:
        """For how many seconds there has been no supervisor, nor a new one in its place; 0 where
        there is one. Waits only where nobody answers, and then little."""
        now = time.monotonic()
        if self._connection is not None and _is_torn(self._connection):
            self._let_go()
        elif self._connection is None and now > self._tried_at + _AGAIN:
            self._tried_at = now
            with contextlib.suppress(OSError):
                self._connection = self._connected(_AGAIN)
        return 0.0 if self._connection else max(now - self._torn_at, 0.001)

    def farewell(self) -> bool:
        """Say that this node ends; whether a supervisor heard it."""
        if self._connection is None:
            return False
        try:
            self._connection.sendall(_END)
            answered = select.select([self._connection], [], [], _FAREWELL)[0]
            if answered and self._connection.recv(len(_HEARD)):
                return True
        except OSError:
            pass
        self._let_go()
        return False

    def _connected(self, seconds: float) -> socket.socket:
        connection = socket.create_connection(self._where, seconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connection.setblocking(False)
        return connection

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._torn_at = time.monotonic()


def _is_torn(connection: socket.socket) -> bool:
    try:
        return not connection.recv(len(_HEARD))
    except BlockingIOError:
        return False
    except OSError:
        return True


def connect(env: Mapping[str, str], node_rank: int, nodes: int) -> Lifeline | None:
    """For the last node's agent, where the supervisor can be reached."""
    address, port = env.get("SLURM_LAUNCH_NODE_IPADDR"), env.get(PORT, "")
    if not address or not port.isdigit() or node_rank != nodes - 1:
        return None
    try:
        return Lifeline(address, int(port))
    except OSError:
        return None
