"""One real shim with a real rank below it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.node_run import outer_environment

from orchestrator.agent.archive import agent_archive


class Rank:
    """Rank 1, on a node whose folder is made in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.node = folder / "node-0000"
        self.node.mkdir(mode=0o700)
        self.log_path = self.node / "rank-00001.log"
        self.archive = folder / "agent.pyz"
        self.archive.write_bytes(agent_archive())
        self.env = outer_environment() | {
            "PTX_NODE_DIR": str(self.node),
            "PTX_RUN_ID": "r",
            "RANK": "1",
            "LOCAL_RANK": "1",
            "WORLD_SIZE": "2",
        }

    def popen(self, *argv: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        shim = [sys.executable, "-I", "-S", str(self.archive), "shim", "--", *argv]
        return subprocess.Popen(shim, env=self.env, stderr=subprocess.PIPE, **kwargs)

    def run(self, *argv: str, **kwargs: Any) -> int:
        process = self.popen(*argv, **kwargs)
        _, self.stderr = process.communicate(timeout=60)
        return process.returncode

    def python(self, code: str, **kwargs: Any) -> int:
        return self.run(sys.executable, "-c", code, **kwargs)

    @property
    def log(self) -> bytes:
        return self.log_path.read_bytes()

    def texts(self) -> list[str]:
        return [line[28:] for line in self.log.decode().splitlines()]

    @property
    def record(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.node / "rank-00001.exit.json").read_bytes())
        return loaded
