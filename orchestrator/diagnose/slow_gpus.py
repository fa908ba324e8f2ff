"""Throttled and idle GPUs, from the samples of the nodes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.diagnose.slow_finding import Finding, listed, node_name
from orchestrator.diagnose.verdict import Evidence
from orchestrator.metrics.lines import Line, number
from orchestrator.metrics.samples import BAD_REASONS, BUSY

THROTTLED_SAMPLES, THROTTLED_SHARE = 12, 0.25
"""Busy samples that there must be, and the share of them that was throttled."""
IDLE_UTILISATION = 5.0
"""Percent, mean over ..."""
IDLE_SECONDS, IDLE_SAMPLES = 120.0, 12
"""... at least so long, in which steps were made."""

Samples = Iterable[tuple[tuple[int, str], Sequence[Line]]]


@dataclass
class _Gpu:
    """What was seen of one."""

    node: int
    path: str
    index: int
    ranks: tuple[int, ...] = ()
    utilisations: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    busy: int = 0
    throttled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    hottest: float | None = None
    last: Line | None = None
    """The newest sample that shows it throttled, else the newest."""

    @property
    def name(self) -> str:
        of = f", rank {', '.join(map(str, self.ranks))}" if self.ranks else ""
        return f"GPU {self.index} of {node_name(self.node)}{of}"


def gpu_findings(
    samples: Samples, attempt: int, window: tuple[float, float] | None
) -> tuple[Finding, ...]:
    """`window`: from when to when (epoch seconds) training was seen to make steps; without one
    nothing is said of idle GPUs, since nobody knows what the run did meanwhile."""
    gpus = [gpu for key, lines in samples for gpu in _gpus(key, lines, window)]
    return (*_throttled(gpus, attempt), *(_idle(gpus, attempt) if window else ()))


def with_throttled(straggler: Finding, gpus: Sequence[Finding]) -> Finding:
    """A slow rank whose GPU is throttled is slow for that."""
    for one in gpus:
        if one.kind == "throttled-gpu" and set(straggler.ranks) & set(one.ranks):
            return replace(straggler, cause=one.sentence.rstrip("."), next=one.next)
    return straggler


def _gpus(
    key: tuple[int, str], lines: Sequence[Line], window: tuple[float, float] | None
) -> list[_Gpu]:
    found: dict[str, _Gpu] = {}
    for line in lines:
        t = number(line.record, "t")
        if t is None or (window is not None and not window[0] <= t <= window[1]):
            continue
        listed_gpus = line.record.get("gpus")
        for place, row in enumerate(listed_gpus if isinstance(listed_gpus, list) else ()):
            if isinstance(row, dict):
                name = str(row.get("uuid") or place)
                index = row.get("index")
                gpu = found.setdefault(name, _Gpu(*key, index if isinstance(index, int) else place))
                _take(gpu, row, line, t)
    return list(found.values())


def _take(gpu: _Gpu, row: dict[str, Any], line: Line, t: float) -> None:
    ranks = row.get("ranks")
    if isinstance(ranks, list):
        gpu.ranks = tuple(rank for rank in ranks if isinstance(rank, int))
    used = number(row, "util")
    if used is not None:
        gpu.utilisations.append(used)
        gpu.times.append(t)
    told = row.get("throttle")
    reasons = [one for one in (told if isinstance(told, list) else ()) if one in BAD_REASONS]
    if used is not None and used >= BUSY:
        gpu.busy += 1
        gpu.throttled += bool(reasons)
        gpu.reasons.update(reasons)
    if reasons or not gpu.throttled:
        gpu.last = line
    hot = number(row, "temperature")
    if hot is not None:
        gpu.hottest = max(hot, gpu.hottest or hot)


def _throttled(gpus: Sequence[_Gpu], attempt: int) -> tuple[Finding, ...]:
    found = [
        gpu
        for gpu in gpus
        if gpu.busy >= THROTTLED_SAMPLES and gpu.throttled >= THROTTLED_SHARE * gpu.busy
    ]
    if not found:
        return ()
    found.sort(key=lambda gpu: -gpu.throttled / gpu.busy)
    words = [
        f"{gpu.name} ({gpu.throttled / gpu.busy:.0%} of {gpu.busy} samples under load: "
        f"{', '.join(reason for reason, _ in gpu.reasons.most_common(2))}"
        f"{'' if gpu.hottest is None else f', up to {gpu.hottest:.0f} °C'})"
        for gpu in found
    ]
    hot = any("thermal" in reason for gpu in found for reason in gpu.reasons)
    sentence = f"{listed(words)}: throttled, slower than it can compute."
    cause = "it is too hot" if hot else "its power supply or the board holds its clocks down"
    following = "Have cooling and power of the node looked at, and leave it out meanwhile."
    return (_finding("throttled-gpu", sentence, cause, following, found, attempt),)


def _idle(gpus: Sequence[_Gpu], attempt: int) -> tuple[Finding, ...]:
    found = [gpu for gpu in gpus if _is_idle(gpu)]
    if not found:
        return ()
    mean = sum(sum(gpu.utilisations) for gpu in found) / sum(len(g.utilisations) for g in found)
    span = max(gpu.times[-1] - gpu.times[0] for gpu in found)
    what = "was" if len(found) == 1 else "were"
    sentence = (
        f"{listed(gpu.name for gpu in found)} {what} used {mean:.0f} % on average over "
        f"{span / 60:.0f} minutes in which training made steps."
    )
    cause = "the rank computes on the CPU or on another GPU, or there is no rank for it"
    following = (
        "Ask for fewer GPUs (resources.gpus_per_node), or move the model to cuda:LOCAL_RANK."
    )
    return (_finding("idle-gpu", sentence, cause, following, found, attempt),)


def _is_idle(gpu: _Gpu) -> bool:
    if len(gpu.utilisations) < IDLE_SAMPLES or gpu.times[-1] - gpu.times[0] < IDLE_SECONDS:
        return False
    return sum(gpu.utilisations) / len(gpu.utilisations) < IDLE_UTILISATION


def _finding(
    kind: str, sentence: str, cause: str, following: str, gpus: Sequence[_Gpu], attempt: int
) -> Finding:
    first = gpus[0]
    rows = first.last.record.get("gpus") if first.last else None
    row = next((r for r in rows or () if isinstance(r, dict) and r.get("index") == first.index), {})
    text = ", ".join(f'"{key}": {row.get(key)}' for key in ("util", "throttle", "temperature"))
    line = first.last.number if first.last else None
    return Finding(
        kind,
        sentence,
        cause,
        following,
        (Evidence(first.path, line, f"GPU {first.index}: {text}"),),
        attempt,
        tuple(sorted(rank for gpu in gpus for rank in gpu.ranks)),
        tuple(sorted({gpu.node for gpu in gpus})),
    )
