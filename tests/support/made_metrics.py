"""metrics.jsonl and samples.jsonl with curves that are known, for plots."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from support.made_runs import CREATED, MadeRun


def loss_at(step: int) -> float:
    return 1.6 + 4.0 * math.exp(-step / 300) + 0.15 * math.sin(step * 12.9898)


def training(
    run: MadeRun,
    steps: Iterable[int],
    *,
    attempt: int = 0,
    start_step: int = 0,
    began: float = 10.0,
    loss: Callable[[int], float] = loss_at,
    every: int = 10,
    **fixed: Any,
) -> MadeRun:
    """A report for each of `steps`, one second a step, `began` seconds after the submission."""
    run.layout.attempt(attempt).mkdir(parents=True, exist_ok=True)
    steps = list(steps)
    total = steps[-1] if steps else 0
    with run.layout.metrics(attempt).open("a") as file:
        for step in steps:
            warm = min(1.0, step / (0.1 * total + 1))
            record = {
                "v": 1,
                "t": CREATED + began + step - start_step,
                "step": step,
                "steps": total,
                "loss": loss(step),
                "lr": 4e-3 * warm * (1 + math.cos(math.pi * step / (total or 1))) / 2,
                "grad_norm": 0.6 + 3 * math.exp(-step / 200) + 0.2 * abs(math.sin(step * 78.233)),
                "tokens_per_s": 52_000 + 3_000 * math.sin(step / 37),
                "samples_per_s": 400.0,
                "memory_bytes": 31 << 30,
                "data_share": 0.02,
                "eval_loss": loss(step) + 0.1 if step % (20 * every) == 0 else None,
                "start_step": start_step,
                "seconds": float(every),
            }
            # As json.dumps writes NaN and Infinity, which scripts of others do.
            file.write(json.dumps(record | fixed) + "\n")
    return run


def sampled(
    run: MadeRun,
    seconds: Iterable[float],
    *,
    attempt: int = 0,
    node: int = 0,
    gpus: int = 8,
    util: Callable[[float, int], float] = lambda t, gpu: 92 + 6 * math.sin(t / 50 + gpu),
) -> Path:
    """Samples of one node, `seconds` after the submission."""
    folder = run.layout.node(attempt, node)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "samples.jsonl"
    with path.open("a") as file:
        for t in seconds:
            devices = [
                {
                    "index": gpu,
                    "uuid": f"GPU-{node}-{gpu}",
                    "util": max(0.0, min(100.0, util(t, gpu))),
                    "memory_used": (60 << 30) + (gpu << 28),
                    "memory_total": 80 << 30,
                    "ranks": [8 * node + gpu],
                }
                for gpu in range(gpus)
            ]
            sample = {
                "v": 1,
                "t": CREATED + t,
                "cpu": {"used": 12.0, "cores": 64},
                "memory": {"used": 90 << 30, "limit": 512 << 30},
                "gpus": devices,
                "ranks": [],
            }
            file.write(json.dumps(sample) + "\n")
    return path
