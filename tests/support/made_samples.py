"""samples.jsonl and heartbeats as a node's sampler and agent leave them, written by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.runs.layout import RunLayout


def gpu(number: int, **changed: Any) -> dict[str, Any]:
    """One in good health; its rank is its number."""
    return {
        "index": number,
        "uuid": f"GPU-{number}",
        "util": 97,
        "memory_used": 60 << 30,
        "memory_total": 80 << 30,
        "power": 650.0,
        "temperature": 66,
        "throttle": ["sw_power_cap"],
        "ecc": 0,
        "xid": None,
        "ranks": [number],
        **changed,
    }


def sample(
    t: float, gpus: Iterable[dict[str, Any]] = (), ranks: Iterable[int] = ()
) -> dict[str, Any]:
    return {
        "v": 1,
        "t": t,
        "cpu": {"used": 9.5, "cores": 96},
        "memory": {"used": 100 << 30, "limit": 512 << 30},
        "gpus": list(gpus),
        "ranks": [{"rank": rank, "rss": 5 << 30, "cpu": 1.0} for rank in ranks],
    }


def leave_samples(
    layout: RunLayout, samples: Iterable[dict[str, Any]], *, node: int = 0, attempt: int = 0
) -> Path:
    path = layout.node(attempt, node) / "samples.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in samples))
    return path


def leave_heartbeat(
    layout: RunLayout, t: float, *, node: int = 0, attempt: int = 0, ahead: float = 0
) -> None:
    """Written at `t`, by a node whose clock is so many seconds ahead of the file server's."""
    path = layout.node(attempt, node) / "heartbeat"
    path.write_text(json.dumps({"t": t + ahead, "seq": 1}).ljust(63) + "\n")
    os.utime(path, (t, t))
