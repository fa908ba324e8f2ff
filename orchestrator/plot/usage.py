"""What the nodes' samples say about GPUs and CPUs, as curves."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from orchestrator.logs.discovery import attempts, node_folders
from orchestrator.metrics.samples import NAME, read
from orchestrator.metrics.series import LATEST, Series
from orchestrator.metrics.thinning import POINTS, Curve, Thinner
from orchestrator.plot.clock import Clock
from orchestrator.runs.layout import RunLayout

MOST_NODES = 16
MOST_BYTES = 64 << 20
"""To be read of one attempt: a thousand nodes over a week leave more than anybody waits for."""
_TICK = 5.0
"""Seconds between two samples of a node: those of one tick make one point."""

Spread = tuple[float, float, float]
"""Mean, lowest, highest."""


@dataclass(frozen=True)
class Usage:
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """`gpu_util` and `cpu_util` in percent, `gpu_memory` in bytes a GPU; with the lowest and the
    highest GPU (or node) of the moment."""
    nodes_read: int = 0
    nodes: int = 0
    """In the attempt of which the smallest share was read."""


def read_usage(layout: RunLayout, series: Series, *, points: int = POINTS) -> Usage:
    """Of at most `MOST_NODES` nodes an attempt, evenly spread."""
    thinner = Thinner(points)
    read_of = (0, 0)
    for attempt in attempts(layout):
        files = _files(layout, attempt)
        chosen = _spread(files)
        if len(files) - len(chosen) >= read_of[1] - read_of[0] and files:
            read_of = (len(chosen), len(files))
        for t, values in _moments(chosen):
            thinner.add_spread(None, t, values)
    clock = Clock(series)
    curves = {key: thinner.curve(key) for key in sorted(thinner.keys())}
    placed = {
        key: replace(curve, steps=tuple(clock.at(t) for t in curve.times))
        for key, curve in curves.items()
    }
    return Usage(placed, *read_of)


def _files(layout: RunLayout, attempt: int) -> list[tuple[Path, int]]:
    """Each node's samples, and how many bytes they are."""
    found = []
    for folder in sorted(node_folders(layout.attempt(attempt))):
        path = folder / NAME
        try:
            found.append((path, path.stat().st_size))
        except OSError:
            continue
    return found


def _spread(files: Sequence[tuple[Path, int]]) -> list[Path]:
    """As many as are affordable, at least one."""
    if not files:
        return []
    largest = max(size for _, size in files)
    count = max(1, min(len(files), MOST_NODES, MOST_BYTES // max(1, largest)))
    return [files[number * len(files) // count][0] for number in range(count)]


def _moments(paths: Sequence[Path]) -> Iterator[tuple[float, dict[str, Spread]]]:
    samples = heapq.merge(*(_timed(path) for path in paths), key=lambda sample: sample[0])
    for tick, together in groupby(samples, key=lambda sample: int(sample[0] // _TICK)):
        values: dict[str, list[float]] = {}
        for _, sample in together:
            for key, numbers in _measured(sample).items():
                values.setdefault(key, []).extend(numbers)
        spread = {
            key: (sum(numbers) / len(numbers), min(numbers), max(numbers))
            for key, numbers in values.items()
            if numbers
        }
        if spread:
            yield (tick + 0.5) * _TICK, spread


def _timed(path: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    for sample in read(path):
        t = _number(sample.get("t"))
        if t is not None and 0 <= t < LATEST:
            yield t, sample


def _measured(sample: Mapping[str, Any]) -> dict[str, list[float]]:
    gpus = [gpu for gpu in _list(sample.get("gpus")) if isinstance(gpu, dict)]
    # A node's other GPUs may be somebody else's.
    ours = [gpu for gpu in gpus if gpu.get("ranks")] or gpus
    cpu = sample.get("cpu")
    used, cores = (
        (_number(cpu.get("used")), _number(cpu.get("cores")))
        if isinstance(cpu, dict)
        else (None, None)
    )
    return {
        "gpu_util": _numbers(ours, "util"),
        "gpu_memory": _numbers(ours, "memory_used"),
        "cpu_util": [100 * used / cores] if used is not None and cores else [],
    }


def _numbers(gpus: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    found = (_number(gpu.get(key)) for gpu in gpus)
    return [number for number in found if number is not None]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value) if math.isfinite(value) else None
