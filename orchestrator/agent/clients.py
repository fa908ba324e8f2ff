"""What people have asked of a run with ptx, as their commands left it in its folder.

A client may be killed between its word and SLURM's, and SLURM may have been told of a job that
another has replaced: so the supervisor asks here before it starts or submits anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from orchestrator.agent.attempts import Event, read_events


def cancelled(run_dir: Path) -> bool:
    """Whether the newest submission was cancelled, and nobody has taken that back."""
    told = _events(run_dir)
    newest = max(_resumptions(told), key=_number, default=None)
    standing = 0
    for event in sorted(told, key=_time):
        if event.get("type") == "cancel" and _is_of(newest, event):
            standing += 1
        elif event.get("type") == "cancel_failed" and _is_of(newest, event) and standing:
            standing -= 1
    return standing > 0


def _is_of(newest: Event | None, event: Event) -> bool:
    """Whether it was said of this resumption or a later one, any of them where there is none. By
    their numbers, since clocks need not agree; by time where an older ptx wrote no number."""
    if newest is None:
        return True
    if "submission" in event:
        return _number(event) >= _number(newest)
    return _time(event) >= _time(newest)


def first_attempt(run_dir: Path) -> int:
    """The first attempt that the newest submission may begin: all before it are another's."""
    return _newest(_events(run_dir)).first_attempt


def newest_submission(run_dir: Path) -> int:
    """The number of the one by which the run stands; 0 for that of `ptx submit`."""
    return _newest(_events(run_dir)).number


def replaced(run_dir: Path, begun: Iterable[Event], job_id: str) -> bool:
    """Whether this job was an earlier submission's than the newest; `begun` are the supervisors'
    events. A job of which nobody has said whose it was is taken for the newest one's."""
    told = _events(run_dir)
    newest = _newest(told)
    submitted = [{"submission": 0} | event for event in told if event.get("type") == "submitted"]
    started = [event for event in begun if event.get("type") == "job_started"]
    before = [number < newest.number for number in _numbers("submission", _of(job_id, submitted))]
    before += [
        attempt < newest.first_attempt for attempt in _numbers("attempt", _of(job_id, started))
    ]
    return bool(before) and all(before)


class _Submission(NamedTuple):
    number: int
    first_attempt: int


def _newest(events: Iterable[Event]) -> _Submission:
    """That by which the run stands: the latest resumption, else `ptx submit`."""
    later = _resumptions(events)
    return _Submission(
        max(_numbers("submission", later), default=0), max(_numbers("attempt", later), default=0)
    )


def _resumptions(events: Iterable[Event]) -> list[Event]:
    """Intents of `ptx resume` that came to something, or may. That of `ptx submit` is the first in
    any case, whatever the clock of its host says."""
    later = [event for event in events if event.get("submission")]
    numbers = {
        kind: {event["submission"] for event in later if event.get("type") == kind}
        for kind in ("submitted", "submit_failed")
    }
    withdrawn = numbers["submit_failed"] - numbers["submitted"]
    intents = [event for event in later if event.get("type") == "intent"]
    return [event for event in intents if event["submission"] not in withdrawn]


def _numbers(key: str, events: Iterable[Event]) -> list[int]:
    return [event[key] for event in events if isinstance(event.get(key), int)]


def _of(job_id: str, events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.get("job_id") == job_id]


def _events(run_dir: Path) -> list[Event]:
    folder = run_dir / "events"
    paths = sorted([*folder.glob("client-*.jsonl"), *folder.glob("resume-*.jsonl")])
    return [event for path in paths for event in read_events(path)]


def _number(event: Event) -> int:
    number = event.get("submission")
    return number if isinstance(number, int) else 0


def _time(event: Event) -> float:
    t = event.get("t")
    return float(t) if isinstance(t, (int, float)) else 0.0
