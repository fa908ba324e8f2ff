"""What people have asked of a run with ptx, as their commands left it in its folder.

A client may be killed between its word and SLURM's, and SLURM may have been told of a job that
another has replaced: so the supervisor asks here before it starts or submits anything.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.agent.attempts import Event, read_events


def cancelled(run_dir: Path) -> bool:
    """Whether the newest submission was cancelled, and nobody has taken that back."""
    told = _events(run_dir)
    begun = max((_time(event) for event in told if event.get("type") == "intent"), default=0.0)
    standing = 0
    for event in sorted(told, key=_time):
        if event.get("type") == "cancel" and _time(event) >= begun:
            standing += 1
        elif event.get("type") == "cancel_failed" and standing:
            standing -= 1
    return standing > 0


def first_attempt(run_dir: Path) -> int:
    """The first attempt that the newest submission may begin: all before it are another's."""
    return max(
        (
            attempt
            for event in _events(run_dir)
            if event.get("type") == "intent" and isinstance(attempt := event.get("attempt"), int)
        ),
        default=0,
    )


def _events(run_dir: Path) -> list[Event]:
    folder = run_dir / "events"
    paths = sorted([*folder.glob("client-*.jsonl"), *folder.glob("resume-*.jsonl")])
    return [event for path in paths for event in read_events(path)]


def _time(event: Event) -> float:
    t = event.get("t")
    return float(t) if isinstance(t, (int, float)) else 0.0
