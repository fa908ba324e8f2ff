"""A run folder that a test writes as agents would, and ptx as a process that reads it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from orchestrator.logs.line import stamp_of
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import this_process

ROOT = Path(__file__).resolve().parents[2]
FOLLOW = (
    "import sys; from pathlib import Path; from orchestrator.cli.follow import follow; "
    "from orchestrator.runs.layout import RunLayout; sys.exit(follow(RunLayout(Path(sys.argv[1]))))"
)
PATIENCE = 60


@dataclass
class FakeRun:
    """Two ranks on one node, under a supervisor that lives as long as the test."""

    layout: RunLayout
    ranks: int = 2
    began: float = field(default_factory=lambda: time.time() - 100)

    @classmethod
    def create(cls, folder: Path, name: str = "demo-abc123") -> FakeRun:
        run = cls(RunLayout(folder / name))
        run.layout.events.mkdir(parents=True)
        record = {
            "v": 1, "run_id": name, "name": "demo", "created": run.began, "scheduler": "local",
            "launcher": "torchrun", "nodes": 1, "procs_per_node": 2, "world_size": 2,
        }  # fmt: skip
        run.layout.record.write_text(json.dumps(record))
        run.event("intent", scheduler="local")
        run.event("submitted", job_id="local-1")
        run.event("supervisor_started", **asdict(this_process()))
        return run

    def event(self, kind: str, **fields: Any) -> None:
        with (self.layout.events / "supervisor.jsonl").open("a") as file:
            file.write(json.dumps({"v": 1, "t": time.time(), "type": kind, **fields}) + "\n")

    def start(self, attempt: int = 0) -> None:
        self.layout.node(attempt, 0).mkdir(parents=True, exist_ok=True)
        self.event("node_started", attempt=attempt, node=0, host="here", pid=1)

    def end(self, *codes: int, reason: str | None = None, message: str = "") -> None:
        failure = next(
            (
                {"rank": rank, "code": code, "signal": None, "t": 1.0, "message": message}
                for rank, code in enumerate(codes)
                if code
            ),
            None,
        )
        self.event(
            "node_ended",
            attempt=0,
            node=0,
            rc=int(any(codes)),
            reason=reason or ("rank-failed" if any(codes) else "completed"),
            ranks={str(rank): code for rank, code in enumerate(codes)},
            first_failure=failure,
        )
        self.event("supervisor_ended", rc=int(any(codes)))

    def log(self, rank: int, *lines: str, mark: str = "o", attempt: int = 0, at: float = 0) -> None:
        """`at` in seconds after the run began, a microsecond apart."""
        path = self.layout.rank_log(attempt, 0, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="") as file:
            for number, text in enumerate(lines):
                file.write(f"{stamp_of(self.began + at + number / 1e6)} {mark} {text}\n")

    def metrics(self, step: int, steps: int, loss: float) -> None:
        record = {
            "v": 1, "t": time.time() - steps + step, "step": step, "steps": steps, "loss": loss,
            "tokens_per_s": 12345.0,
        }  # fmt: skip
        with self.layout.metrics(0).open("a") as file:
            file.write(json.dumps(record) + "\n")


def ptx(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli.main", *map(str, arguments)]


def run_ptx(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ptx(*arguments),
        cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip


class Terminal:
    """A process on a terminal of its own; `shown` is all it wrote so far."""

    def __init__(self, argv: list[str], columns: int = 80, **env: str) -> None:
        main, side = pty.openpty()
        os.set_inheritable(side, True)
        import termios

        termios.tcsetwinsize(side, (24, columns))
        self.process = subprocess.Popen(
            argv, cwd=ROOT, env=os.environ | {"TERM": "xterm-256color"} | env,
            stdin=side, stdout=side, stderr=side, start_new_session=True,
        )  # fmt: skip
        os.close(side)
        self._main = main
        self._data = b""
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def shown(self) -> str:
        return self._data.decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.shown}"
            time.sleep(0.02)

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def _read(self) -> None:
        try:
            while data := os.read(self._main, 65536):
                self._data += data
        except OSError:  # the other side was closed: Linux says EIO
            return
