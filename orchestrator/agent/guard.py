"""The processes without which a rank must not go on: its agent and its launcher."""

from __future__ import annotations

import os
from collections.abc import Mapping

from orchestrator.agent.linux import open_pidfd
from orchestrator.agent.processes import Process, read_process


class Guard:
    """Knows which of the watched processes has died."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._watched: dict[str, Process | None] = {"launcher": read_process(os.getppid())}
        if env.get("PTX_AGENT_PID"):
            self._watched["agent"] = _agent(env)
        self.descriptors = [
            pidfd
            for process in self._watched.values()
            if process is not None and (pidfd := open_pidfd(process.pid)) is not None
        ]
        """Readable when one of them has ended."""
        self.complete = len(self.descriptors) == len(self._watched)
        """False where the kernel has no pidfds: `dead` must be asked from time to time."""

    def dead(self) -> str | None:
        """`agent`, `launcher`, or None while both live."""
        for name in ("agent", "launcher"):
            if name in self._watched:
                process = self._watched[name]
                if process is None or not process.alive():
                    return name
        return None


def _agent(env: Mapping[str, str]) -> Process | None:
    agent = read_process(int(env["PTX_AGENT_PID"]))
    if agent is None or str(agent.start) != env.get("PTX_AGENT_START", str(agent.start)):
        return None
    return agent
