"""One node's agent, the real one, with a hand-written plan and launch.sh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.agent.archive import agent_archive

PATIENCE = 60.0
"""Seconds until a test gives up; nothing that works comes near it."""
LIMIT = 30.0
"""Seconds after which nothing of an ended run may be left."""
LAUNCHING = ': >"$PTX_NODE_DIR/launching"\n'
SHIM = f'{sys.executable} -I -S "$PTX_BUNDLE/agent.pyz" shim --'


def bash_launcher(ranks: int = 2) -> str:
    """A launcher of a few lines: starts one shim a rank and waits for all of them."""
    return (
        LAUNCHING
        + f"for rank in $(seq 0 {ranks - 1}); do\n"
        + f"  RANK=$rank LOCAL_RANK=$rank WORLD_SIZE={ranks} {SHIM} "
        + f'{sys.executable} "$PTX_BUNDLE/rank.py" &\n'
        + "done\nwait\n"
    )


class NodeRun:
    """A run folder with a bundle in it, and the agent started on it."""

    def __init__(
        self, root: Path, rank: str, launch: str | None = None, ranks: int = 2, **plan: Any
    ) -> None:
        folder = f"test-{os.getpid()}-{time.monotonic_ns()}"
        self.run_id = plan.get("run_id", folder)
        self.root = root / folder
        self.bundle = self.root / "bundle"
        self.bundle.mkdir(parents=True)
        self.plan = {
            "version": 1,
            "run_id": self.run_id,
            "run_dir": str(self.root),
            "scheduler": "local",
            "procs_per_node": ranks,
            "gpus_per_node": 0,
            "entrypoint": ["true"],
            "workdir": str(root),
            "rendezvous": {"interface": None},
            "secrets": [],
            "group_shared": False,
            "grace_seconds": 3,
            **plan,
        }
        (self.bundle / "plan.json").write_text(json.dumps(self.plan))
        (self.bundle / "agent.pyz").write_bytes(agent_archive())
        (self.bundle / "launch.sh").write_text(bash_launcher(ranks) if launch is None else launch)
        (self.bundle / "rank.py").write_text(rank)
        self.mark = f"{self.run_id}:0:0:{self.root}"
        self.node = self.root / "attempts/000/node-0000"
        self.agent: subprocess.Popen[str] | None = None

    @property
    def argv(self) -> list[str]:
        agent = str(self.bundle / "agent.pyz")
        return [sys.executable, "-I", "-S", agent, "node", str(self.bundle / "plan.json")]

    def start(self, **env: str) -> NodeRun:
        self.agent = subprocess.Popen(
            self.argv, env={**outer_environment(), **env}, stderr=subprocess.PIPE, text=True
        )
        return self

    def wait(self) -> int:
        assert self.agent is not None
        return self.agent.wait(PATIENCE)

    def until_ready(self, ranks: int = 2) -> None:
        """Every rank has printed `ready`."""
        until(
            lambda: sum("o ready" in log for log in self.logs().values()) == ranks,
            "all ranks ready",
            self.story,
        )

    def logs(self) -> dict[str, str]:
        return {
            path.name: path.read_text(errors="replace") for path in self.node.glob("rank-*.log")
        }

    def records(self) -> dict[int, dict[str, Any]]:
        found = [json.loads(path.read_bytes()) for path in self.node.glob("rank-*.exit.json")]
        return {record["rank"]: record for record in found}

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.root / "events/a000-node-0000.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for line in lines if (event := json.loads(line))["type"] == kind]

    def ended(self) -> dict[str, Any]:
        (event,) = self.events("node_ended")
        return event

    def marked(self) -> dict[int, list[str]]:
        """Every living process that bears the mark: pid to argv. Looks at /proc by itself, not
        through the code under test."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                environ = (entry / "environ").read_bytes().split(b"\0")
                argv = (entry / "cmdline").read_bytes().decode().split("\0")[:-1]
            except OSError:
                continue
            if state not in "ZX" and f"PTX_MARK={self.mark}".encode() in environ:
                found[int(entry.name)] = argv
        return found

    def shims(self) -> list[int]:
        return sorted(pid for pid, argv in self.marked().items() if argv[4:5] == ["shim"])

    def ranks(self) -> list[int]:
        wanted = str(self.bundle / "rank.py")
        return sorted(pid for pid, argv in self.marked().items() if argv[1:2] == [wanted])

    def launcher(self) -> int:
        """launch.sh, or what it has become: the agent's child."""
        assert self.agent is not None
        return next(pid for pid in self.marked() if parent_of(pid) == self.agent.pid)

    def story(self) -> str:
        files = sorted(path for path in self.root.rglob("*") if path.suffix in (".log", ".jsonl"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')}" for path in files)

    def assert_nothing_left_soon(self, also: list[int] | None = None) -> None:
        """`also`: processes that shed the mark."""
        until(
            lambda: not self.marked() and not any(map(is_alive, also or [])),
            "no process left",
            lambda: f"{self.marked()}\n{self.story()}",
            within=LIMIT,
        )

    def destroy(self) -> None:
        """After a test, whatever its outcome."""
        pids = list(self.marked())
        if self.agent is not None and self.agent.poll() is None:
            pids.append(self.agent.pid)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self.agent is not None:
            self.agent.wait(PATIENCE)
            assert self.agent.stderr is not None
            self.agent.stderr.close()


def outer_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PTX_", "SLURM_", "CUDA_"))
    }


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(
    look: Callable[[], object],
    what: str,
    explain: Callable[[], str] = str,
    within: float = PATIENCE,
) -> None:
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline, f"never came: {what}\n{explain()}"
        time.sleep(0.05)
