"""Real ranks of a training job, without a launcher so that each exit code is seen.

`run` forks them, which is fast. `start` starts them, for tests of what an image of a process itself
goes through: signals, kills, and starting anew in its own place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from support import forked_ranks
from support.ports import free_port

from orchestrator.plan.plan import PLAN_VERSION
from orchestrator.spec.policies import Checkpoint, Logging
from orchestrator.spec.strategy import Ddp
from orchestrator.spec.training import Training

CHECKOUT = Path(__file__).resolve().parent.parent.parent
TRAIN_LM = CHECKOUT / "jobs" / "train_lm.py"
TINY = ("--context=16", "--dim=16", "--layers=1", "--heads=2", "--sample_bytes=4")


def plan_file(
    folder: Path, *, world_size: int, training: dict[str, Any] | None = None, **changed: Any
) -> Path:
    """A plan.json as ptx writes it, for ranks on CPU; its run folder is `folder`/run."""
    settings = Training.model_validate(training or {})
    plan: dict[str, Any] = {
        "version": PLAN_VERSION,
        "run_dir": str(folder / "run"),
        "world_size": world_size,
        "procs_per_node": world_size,
        "gpus_per_node": 0,
        "global_batch": settings.micro_batch * settings.accumulation * world_size,
        "strategy": Ddp().model_dump(),
        "training": settings.model_dump(),
        "logging": Logging(every_steps=1).model_dump(),
        "checkpoint": Checkpoint().model_dump(),
        "group_shared": False,
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(plan | changed))
    return path


@dataclass
class Ended:
    code: int
    out: str
    err: str


def all_well(ranks: Sequence[Ended]) -> None:
    """Shows all that failed: who lost a connection says nothing of who closed it."""
    ends = [f"rank {n} ended with {one.code}: {one.err}" for n, one in enumerate(ranks) if one.code]
    assert not ends, "\n".join(ends)


def start(
    script: Path, *args: str, world_size: int, plan: Path | None = None, **env: str
) -> list[subprocess.Popen[str]]:
    """One process a rank, with `env` beside what a launcher sets. The caller ends them through
    `end`."""
    return [
        subprocess.Popen(
            [sys.executable, str(script), *args],
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for given in _environments(world_size, plan, env)
    ]


def _environments(world_size: int, plan: Path | None, env: dict[str, str]) -> list[dict[str, str]]:
    """By rank."""
    shared = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PTX_")},
        "PYTHONPATH": os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "tests"))),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world_size),
        **({"PTX_PLAN": str(plan)} if plan else {}),
        **env,
    }
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]


def end(ranks: list[subprocess.Popen[str]], *, within: float = 300) -> list[Ended]:
    """Wait for all ranks, and leave none behind whatever happens."""
    try:
        return [Ended(*_result(rank, within)) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def _result(rank: subprocess.Popen[str], within: float) -> tuple[int, str, str]:
    out, err = rank.communicate(timeout=within)
    return rank.returncode, out, err


def run(
    script: Path,
    *args: str,
    world_size: int,
    plan: Path | None = None,
    within: float = 600,
    **env: str,
) -> list[Ended]:
    """What each rank came to, forked; none is left behind whatever happens."""
    deadline = time.monotonic() + within
    with ExitStack() as stack:
        servers = [forked_ranks.server(rank) for rank in range(world_size)]
        ranks = []
        for server, given in zip(servers, _environments(world_size, plan, env), strict=True):
            out, err = (stack.enter_context(_scratch()) for _ in range(2))
            pid = server.fork(script, args, given, out, err)
            stack.callback(server.kill, pid)
            ranks.append((server, pid, out, err))
        return [
            Ended(server.wait(pid, deadline), _written(out), _written(err))
            for server, pid, out, err in ranks
        ]


def _scratch() -> IO[str]:
    return tempfile.TemporaryFile("w+")


def _written(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
