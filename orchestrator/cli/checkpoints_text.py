"""Checkpoints as a table and as JSON. The keys are public: tests/cli/public.json holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.checkpoints.listing import Listed
from orchestrator.checkpoints.names import StepFolder
from orchestrator.cli.output import duration, size, table

_HEADER = ("STEP", "ATTEMPT", "AGE", "SIZE", "RANKS", "STRATEGY", "METRICS", "STATE")


def checkpoint_table(
    found: Sequence[Listed], why: Mapping[StepFolder, str | None], now: float
) -> str:
    """`why`: what speaks against trusting one that is whole."""
    return table(_HEADER, [_row(one, why.get(one.folder), now) for one in found])


def _row(one: Listed, untrusted: str | None, now: float) -> tuple[str, ...]:
    manifest = one.manifest
    step, attempt = str(one.folder.step), str(one.folder.attempt)
    if manifest is None:
        return (step, attempt, "-", "-", "-", "-", "-", state_of(one, untrusted))
    return (
        step,
        attempt,
        duration(now - manifest.created),
        size(manifest.bytes),
        str(manifest.world_size),
        strategy_words(manifest.strategy),
        _metric(manifest.metrics),
        state_of(one, untrusted),
    )


def state_of(one: Listed, untrusted: str | None) -> str:
    if not one.whole:
        return "damaged" if one.manifest is not None or one.folder.committed else "incomplete"
    if untrusted is not None:
        return "untrusted"
    if one.resumes:
        return "next start"
    return "whole" if one.eligible else "left behind"


def strategy_words(strategy: Mapping[str, Any]) -> str:
    """`ddp`, `fsdp`, `zero3`, `fsdp tp2 pp4`."""
    name = str(strategy.get("name", "?"))
    parts = [f"{name}{strategy['stage']}" if "stage" in strategy else name]
    for key, short in (("tensor_parallel", "tp"), ("pipeline_parallel", "pp")):
        if strategy.get(key, 1) not in (None, 1):
            parts.append(f"{short}{strategy[key]}")
    return " ".join(parts)


def _metric(metrics: Mapping[str, Any]) -> str:
    """The one that says most: held-out before training loss."""
    for name in ("eval_loss", "loss", *metrics):
        value = metrics.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{name} {value:.4g}"
    return "-"


def checkpoint_fields(one: Listed, untrusted: str | None) -> dict[str, Any]:
    manifest = one.manifest
    return {
        **folder_fields(one.folder),
        "whole": one.whole,
        "problem": one.problem or untrusted,
        "eligible": one.eligible,
        "next_start": one.resumes and untrusted is None,
        "created": manifest.created if manifest else None,
        "bytes": manifest.bytes if manifest else None,
        "files": len(manifest.files) if manifest else None,
        "world_size": manifest.world_size if manifest else None,
        "strategy": dict(manifest.strategy) if manifest else None,
        "metrics": _finite(manifest.metrics) if manifest else {},
    }


def _finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no word for the others."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }


def folder_fields(folder: StepFolder) -> dict[str, Any]:
    return {"step": folder.step, "attempt": folder.attempt, "path": str(folder.path)}
