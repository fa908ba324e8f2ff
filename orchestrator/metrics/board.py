"""A run as it stands now: its progress, its nodes and its ranks, out of what they last wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.metrics.lines import number
from orchestrator.metrics.pace import marked, slow_ranks
from orchestrator.metrics.samples import BAD_REASONS, BUSY, NAME, newest
from orchestrator.metrics.tail import MetricsTail, Progress
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_heartbeat
from orchestrator.runs.server_time import age
from orchestrator.runs.state import NodeState

SILENT = 90.0
"""Seconds without a heartbeat that are worth a word: three of them."""
_REPORTS = 256 << 10
"""Bytes of metrics.jsonl at its end: hundreds of reports, of which the last twenty count."""
STALE = 60.0
"""Seconds after which a sample tells nothing of now."""


@dataclass(frozen=True)
class GpuRow:
    index: int | None
    uuid: str | None
    util: float | None
    """Percent."""
    memory_used: float | None
    memory_total: float | None
    power: float | None
    temperature: float | None
    throttle: tuple[str, ...]
    ecc: float | None
    xid: float | None
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class RankRow:
    rank: int
    node: int
    gpu: GpuRow | None
    cpu: float | None
    """Cores."""
    rss: float | None
    seconds: float | None
    """Its own a step; None where it is not among the slowest, or nobody knows."""
    slow: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class NodeRow:
    node: int
    host: str
    heartbeat: float | None
    """Seconds since the last one; None where there is none, or the node has ended."""
    sampled: float | None
    """Seconds since the last sample."""
    cpu_used: float | None
    cpu_cores: float | None
    memory_used: float | None
    memory_limit: float | None
    gpus: tuple[GpuRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    run: Observed
    at: float
    """Epoch seconds."""
    progress: Progress
    report: Mapping[str, Any]
    """The last report of rank 0; {} where there is none."""
    nodes: tuple[NodeRow, ...]
    ranks: tuple[RankRow, ...]


class Board:
    """Looks at a run again and again: two small reads a node, and what was added to the metrics."""

    def __init__(self, layout: RunLayout, clock: Callable[[], float] = time.time) -> None:
        self._layout, self._clock = layout, clock
        self._metrics = MetricsTail(layout, last=_REPORTS)

    def look(self, run: Observed) -> Snapshot:
        """Of the newest attempt. Raises UserError where the run folder cannot be read."""
        progress, now = self._metrics.look(), self._clock()
        report, attempt = self._metrics.record, run.state.attempt
        slow = {one.rank: one.seconds for one in slow_ranks(report)}
        usual, step = number(report, "rank_seconds_median"), progress.seconds_per_step
        behind = marked(slow_ranks(report), usual, step) if usual is not None and step else set()
        nodes, ranks = list[NodeRow](), list[RankRow]()
        for node in run.state.nodes if attempt is not None else ():
            sample = newest(self._layout.node(attempt or 0, node.node) / NAME) or {}
            silence, its_now = self._heard(attempt or 0, node, now)
            row = _node(node, sample, silence, its_now, live=not run.state.state.ended)
            nodes.append(row)
            if node.ended is None and row.sampled is not None and row.sampled < STALE:
                ranks += _ranks(row, sample, slow, behind)
        return Snapshot(
            run, now, progress, report, tuple(nodes), tuple(sorted(ranks, key=lambda row: row.rank))
        )

    def _heard(self, attempt: int, node: NodeState, now: float) -> tuple[float | None, float]:
        """Seconds since its last heartbeat, None where it has ended or left none; and what the
        node's own clock says now, by which its samples have their times."""
        beat = None if node.ended is not None else read_heartbeat(self._layout, attempt, node.node)
        if beat is None:
            return None, now
        silence = max(0.0, age(self._layout, beat.written, now))
        return silence, beat.t + silence


def _node(
    node: NodeState, sample: dict[str, Any], silence: float | None, now: float, *, live: bool
) -> NodeRow:
    t = number(sample, "t")
    sampled = None if t is None else max(0.0, now - t)
    fresh = sample if sampled is not None and sampled < STALE and node.ended is None else {}
    cpu, memory = _object(fresh.get("cpu")), _object(fresh.get("memory"))
    notes = [node.reason] if node.reason and node.reason != "completed" else []
    if live and silence is not None and silence > SILENT:
        notes.append(f"silent for {silence:.0f} s")
    return NodeRow(
        node.node,
        node.host,
        silence,
        sampled,
        number(cpu, "used"),
        number(cpu, "cores"),
        number(memory, "used"),
        number(memory, "limit"),
        tuple(_gpu(row) for row in _objects(fresh.get("gpus"))),
        tuple(notes),
    )


def _ranks(
    node: NodeRow, sample: dict[str, Any], slow: Mapping[int, float], behind: set[int]
) -> list[RankRow]:
    own = {row["rank"]: row for row in _objects(sample.get("ranks")) if _is_rank(row.get("rank"))}
    gpus = {rank: gpu for gpu in node.gpus for rank in gpu.ranks}
    return [
        RankRow(
            rank,
            node.node,
            gpus.get(rank),
            number(own.get(rank, {}), "cpu"),
            number(own.get(rank, {}), "rss"),
            slow.get(rank),
            rank in behind,
            _notes(gpus.get(rank), slow=rank in behind),
        )
        for rank in {*own, *gpus}
    ]


def _notes(gpu: GpuRow | None, *, slow: bool) -> tuple[str, ...]:
    notes = ["slow"] if slow else []
    if gpu is not None:
        bad = [reason for reason in gpu.throttle if reason in BAD_REASONS]
        if bad and (gpu.util or 0) >= BUSY:
            notes.append(f"throttled: {', '.join(bad)}")
        if gpu.xid:
            notes.append(f"Xid {gpu.xid:.0f}")
        if gpu.ecc:
            notes.append(f"ECC {gpu.ecc:.0f}")
    return tuple(notes)


def _gpu(row: dict[str, Any]) -> GpuRow:
    throttle, ranks, uuid = row.get("throttle"), row.get("ranks"), row.get("uuid")
    index = number(row, "index")
    return GpuRow(
        None if index is None else int(index),
        uuid if isinstance(uuid, str) else None,
        number(row, "util"),
        number(row, "memory_used"),
        number(row, "memory_total"),
        number(row, "power"),
        number(row, "temperature"),
        tuple(str(one) for one in throttle) if isinstance(throttle, list) else (),
        number(row, "ecc"),
        number(row, "xid"),
        tuple(one for one in ranks if _is_rank(one)) if isinstance(ranks, list) else (),
    )


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
