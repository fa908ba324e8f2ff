"""The real command, as a person would type it, and what it left on disk and in /proc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parent.parent.parent
LAUNCHERS = ("torchrun", "accelerate", "deepspeed")


@dataclass
class Ptx:
    """ptx with a runs root of its own."""

    runs: Path
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = CHECKOUT
    argv: tuple[str, ...] = (sys.executable, "-m", "orchestrator.cli.main")

    def __call__(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PTX_RUNS": str(self.runs)} | self.env
        return subprocess.run(
            [*self.argv, *args],
            cwd=self.cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def ok(self, *args: str, timeout: float = 120) -> str:
        done = self(*args, timeout=timeout)
        assert done.returncode == 0, (
            f"ptx {args} gave {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def submit(self, spec: Path | str, *args: str) -> Path:
        """Submit and return the run folder."""
        return self.runs / self.ok("submit", str(spec), *args).split()[0]

    def state(self, run: Path) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.ok("status", run.name, "--json"))
        return status

    def story(self, run: Path) -> str:
        """Everything a failed assertion wants to show."""
        told = [
            f"--- {path.relative_to(run)}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(run.rglob("*"))
            if path.suffix in {".log", ".jsonl"} or path.name.endswith("exit.json")
        ]
        return "\n".join([self("status", run.name).stdout, *told])


def exit_records(run: Path, attempt: int = 0) -> list[dict[str, Any]]:
    folder = run / "attempts" / f"{attempt:03d}"
    paths = sorted(folder.glob("node-*/rank-*.exit.json"), key=lambda path: path.name)
    return [json.loads(path.read_text()) for path in paths]


def rank_logs(run: Path, attempt: int = 0) -> list[Path]:
    """By rank: torchrun's c10d rendezvous gives ranks to nodes in the order they arrive."""
    folder = run / "attempts" / f"{attempt:03d}"
    return sorted(folder.glob("node-*/rank-?????.log"), key=lambda path: path.name)


def processes(run: Path) -> dict[int, str]:
    """pid -> command line of every live process that bears this run's mark."""
    mark = f"PTX_MARK={run.name}:".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark in (entry / "environ").read_bytes():
                found[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:
            continue
    return {pid: command for pid, command in found.items() if command}


def eventually(
    look: Callable[[], T], *, within: float, what: str, story: Callable[[], str] = str
) -> T:
    """The first true answer; a generous limit, so that it speaks of hangs and not of speed."""
    end = time.monotonic() + within
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:.0f} s: {what}\n{story()}")
        time.sleep(0.2)
    return seen
