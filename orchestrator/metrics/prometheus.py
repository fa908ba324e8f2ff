"""A run's newest numbers in Prometheus' text format, version 0.0.4, for a textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.metrics.board import NodeRow, RankRow, Snapshot
from orchestrator.metrics.lines import number
from orchestrator.runs.state import State
from orchestrator.runs.words import printable

Labels = Mapping[str, str]
_REPORTED = (
    ("step", "Optimizer steps done."),
    ("steps", "Optimizer steps planned."),
    ("loss", "Training loss in nats a target, since the last report."),
    ("eval_loss", "Held-out loss in nats a target."),
    ("lr", "Learning rate."),
    ("grad_norm", "Norm of the gradient before clipping."),
    ("tokens_per_s", "Tokens a second over all ranks.", "tokens_per_second"),
    ("samples_per_s", "Samples a second over all ranks.", "samples_per_second"),
    ("memory_bytes", "Peak memory of rank 0."),
    ("mfu", "Model FLOPs utilisation, 0 to 1.", "mfu_ratio"),
    ("data_share", "Share of the time that ranks wait for data.", "data_wait_ratio"),
    ("checkpoint_stall", "Share of the time that checkpoints take.", "checkpoint_stall_ratio"),
    ("rank_seconds_median", "A rank's own seconds a step, the median of all."),
    ("t", "When rank 0 last reported, in epoch seconds.", "report_timestamp_seconds"),
)
_GPU = (
    ("util", "gpu_utilisation_ratio", "GPU utilisation, 0 to 1.", 0.01),
    ("memory_used", "gpu_memory_used_bytes", "GPU memory in use.", 1.0),
    ("memory_total", "gpu_memory_bytes", "GPU memory.", 1.0),
    ("power", "gpu_power_watts", "Power that the GPU draws.", 1.0),
    ("temperature", "gpu_temperature_celsius", "Temperature of the GPU.", 1.0),
    ("ecc", "gpu_ecc_uncorrected", "Uncorrected ECC errors since the driver was loaded.", 1.0),
    ("xid", "gpu_last_xid", "Last Xid error; absent where there was none.", 1.0),
)
_NODE = (
    ("cpu_used", "node_cpu_used_cores", "Cores in use."),
    ("cpu_cores", "node_cpu_cores", "Cores that may be used."),
    ("memory_used", "node_memory_used_bytes", "Memory in use."),
    ("memory_limit", "node_memory_limit_bytes", "Memory that may be used."),
)


@dataclass
class _Family:
    help: str
    samples: list[str] = field(default_factory=list)


class _Text:
    """Families in the order in which they were met first; each stands in one piece."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}

    def add(self, name: str, text: str, value: float | None, labels: Labels) -> None:
        """Nothing for None."""
        if value is None:
            return
        told = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        sample = f"ptx_{name}{{{told}}} {_value(value)}"
        self._families.setdefault(name, _Family(text)).samples.append(sample)

    def lines(self) -> Iterator[str]:
        for name, family in self._families.items():
            yield f"# HELP ptx_{name} {family.help}"
            yield f"# TYPE ptx_{name} gauge"
            yield from family.samples


def exposition(seen: Snapshot) -> str:
    """The whole file, ended by a newline."""
    text, run = _Text(), seen.run
    record = run.record
    base = {"run_id": record.run_id, "name": record.name}
    for state in State:
        told = {**base, "state": state.value}
        text.add("run_state", "1 for the state that the run is in.", run.state.state is state, told)
    text.add("run_attempt", "Number of the newest attempt.", run.state.attempt, base)
    text.add("run_world_size", "Ranks of the run.", record.world_size, base)
    for key, words, *other in _REPORTED:
        text.add((other or [key])[0], words, _reported(seen.report, key), base)
    _nodes(text, base, seen.nodes, seen.at)
    _ranks(text, base, seen.ranks)
    return "\n".join(text.lines()) + "\n"


def _reported(report: Mapping[str, Any], key: str) -> float | None:
    """A loss that stands there and is no finite number is NaN: without its sample an alert would
    see the last finite one until that is stale."""
    value = number(dict(report), key)
    return math.nan if value is None and key == "loss" and key in report else value


def _nodes(text: _Text, base: Labels, nodes: Sequence[NodeRow], now: float) -> None:
    for row in nodes:
        here = {**base, "node": str(row.node), "host": row.host}
        beat = None if row.heartbeat is None else now - row.heartbeat
        words = "When the node's agent was last heard of, in epoch seconds."
        text.add("node_heartbeat_timestamp_seconds", words, beat, here)
        for key, name, words in _NODE:
            text.add(name, words, getattr(row, key), here)
        for gpu in row.gpus:
            one = {**here, "gpu": str(gpu.index), "uuid": gpu.uuid or ""}
            for key, name, words, unit in _GPU:
                value = getattr(gpu, key)
                text.add(name, words, None if value is None else value * unit, one)
            for reason in dict.fromkeys(gpu.throttle):  # a series stands there once
                told = {**one, "reason": reason}
                text.add("gpu_throttled", "1 for a reason to clock lower.", 1, told)


def _ranks(text: _Text, base: Labels, ranks: Sequence[RankRow]) -> None:
    for row in ranks:
        here = {**base, "rank": str(row.rank), "node": str(row.node)}
        text.add("rank_cpu_used_cores", "Cores that the rank uses.", row.cpu, here)
        text.add("rank_memory_bytes", "Memory that the rank holds.", row.rss, here)
        words = "The rank's own seconds a step, of the slowest ranks."
        text.add("rank_step_seconds", words, row.seconds, here)
        text.add("rank_slow", "1 for a rank that the others wait for.", row.slow, here)


def _escaped(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return printable(escaped)


def _value(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if isinstance(value, bool) or (math.isfinite(value) and value == int(value)):
        return str(int(value))
    return repr(float(value))
