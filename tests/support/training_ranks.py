"""Real ranks of a training job, started without a launcher so that each exit code is seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def start(
    script: Path, *args: str, world_size: int, plan: Path | None = None, **env: str
) -> list[subprocess.Popen[str]]:
    """One process a rank, with `env` beside what a launcher sets. The caller ends them through
    `end`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PTX_")},
        "PYTHONPATH": os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "tests"))),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        **({"PTX_PLAN": str(plan)} if plan else {}),
        **env,
    }
    return [
        subprocess.Popen(
            [sys.executable, str(script), *args],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]


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
    script: Path, *args: str, world_size: int, plan: Path | None = None, **env: str
) -> list[Ended]:
    return end(start(script, *args, world_size=world_size, plan=plan, **env))
