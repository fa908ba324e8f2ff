"""The plan: every number a run has, derived once from spec and target. Pure data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PLAN_VERSION = 1


@dataclass(frozen=True)
class Target:
    """What planning must know of the world outside the spec."""

    python: str
    """Interpreter that runs ptx; the default for launcher and entrypoint."""
    workdir: Path
    """Where `ptx submit` was typed."""
    gpus: int = 0
    """GPUs that a local run may see (an existing CUDA_VISIBLE_DEVICES honoured)."""
    cpus: int = 1
    """CPU cores of this machine."""


@dataclass(frozen=True)
class Plan:
    """plan.json, the one contract between ptx and agent, shim and entrypoint.

    Every field is public: removing or changing one needs a new PLAN_VERSION.
    """

    version: int
    run_id: str
    run_dir: str
    name: str
    scheduler: str
    launcher: str
    nodes: int
    procs_per_node: int
    gpus_per_node: int
    world_size: int
    cpus_per_proc: int | None
    """CPU cores of a rank, which become its OMP_NUM_THREADS; None leaves it to SLURM's count."""
    data_parallel_size: int
    global_batch: int
    """Samples of one optimizer step over all ranks."""
    python: str
    workdir: str
    entrypoint: tuple[str, ...]
    """argv of a rank; an item `{python}` first stands for the interpreter found after setup."""
    args: dict[str, Any]
    """The entrypoint's args as the spec has them (empty for a list)."""
    rendezvous: dict[str, Any]
    """backend, port (None: derived), timeout (s), interface."""
    strategy: dict[str, Any]
    training: dict[str, Any]
    restart: dict[str, Any]
    """max, on, and in seconds backoff, grace, hang_after, warning (see plan/restart.py)."""
    checkpoint: dict[str, Any]
    logging: dict[str, Any]
    secrets: tuple[str, ...]
    """Names only; values lie in <run_dir>/secrets, 0600, `NAME=value` ended by NUL."""
    group_shared: bool
    grace_seconds: int = 10
    """How long the ranks have after SIGTERM before SIGKILL."""
    resume_from: dict[str, int] | None = None
    """Where a person went back: {"step": N, "attempt": K}; from attempt K on no checkpoint of an
    earlier attempt beyond step N is continued from. None: the newest one is."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
