"""A small training that can be disturbed, and its losses step by step over all attempts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.ptx import CHECKOUT, Ptx

EVERY = 20
"""Steps between two checkpoints."""
SIZE = {
    "resources.gpus_per_node": 0,
    "entrypoint.args.dim": 32,
    "entrypoint.args.layers": 2,
    "entrypoint.args.context": 64,
    "entrypoint.args.sample_bytes": 0,
    "training.evaluation.batches": 2,
    "logging.every_steps": 1,
    "checkpoint.every_steps": EVERY,
    "checkpoint.on_signal": "true",
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"strategy.name": "ddp"},
    # One of them with several documents to a sample: their order is kept elsewhere.
    "fsdp": {"strategy.name": "fsdp", "entrypoint.args.packed": "true"},
    "zero 3": {"strategy": "{name: zero, stage: 3}"},
}


def submit(ptx: Ptx, where: tuple[str, ...], steps: int, **more: Any) -> Path:
    """`more`: spec keys with `__` for the dot."""
    sets = SIZE | {"entrypoint.args.steps": steps}
    sets |= {key.replace("__", "."): value for key, value in more.items()}
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    return ptx.submit(CHECKOUT / "jobs" / "quickstart.yaml", *where, *words)


def records(run: Path) -> list[tuple[int, int, float]]:
    """(attempt, step, loss) in the order in which they were written; torn last lines left out."""
    found = []
    for path in sorted(run.glob("attempts/*/metrics.jsonl")):
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found.append((int(path.parent.name), record["step"], record["loss"]))
    return found


def losses(run: Path) -> dict[int, float]:
    """By step; of a step that was done twice the last, which is the one that was kept."""
    return {step: loss for _, step, loss in records(run)}


def committed_by(last: int, every: int, *, asynchronous: bool = True) -> int:
    """Step of a checkpoint that is committed for certain once step `last` is reported.

    Saves were due up to the step before. The last of them may be under way where it is written in
    the background, and no other: each waits for the one before.
    """
    due = (last - 1) // every * every
    return due - every if asynchronous else due


def steps_lost(run: Path) -> int:
    """Steps that were done again."""
    steps = [step for _, step, _ in records(run)]
    return len(steps) - len(set(steps))


def last_step(run: Path) -> int:
    return max((step for _, step, _ in records(run)), default=0)


def attempts(run: Path) -> int:
    return len(list((run / "attempts").iterdir()))


def ends(run: Path) -> list[dict[str, Any]]:
    """How each attempt ended, by the supervisors' events."""
    events = [
        json.loads(line)
        for path in (run / "events").glob("*.jsonl")
        for line in path.read_text().splitlines()
        if '"attempt_ended"' in line
    ]
    return sorted(events, key=lambda event: event["attempt"])


def classes(run: Path) -> list[str]:
    """As what each ended."""
    return [event["class"] for event in ends(run)]
