"""The attempts of a run as a table, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from orchestrator.cli.output import duration, table
from orchestrator.runs.attempts import Attempt
from orchestrator.runs.goodput import Goodput

SHOWN_ATTEMPTS = 8
_NEXT = {
    "allocation": "again in place",
    "requeue": "queued again",
    "new-job": "submitted again",
}


def attempt_table(attempts: Sequence[Attempt], by_hand: set[int], now: float) -> str:
    """The newest last; empty for a run that was started once. `by_hand`: those that a person
    began."""
    if len(attempts) < 2:
        return ""
    shown = attempts[-SHOWN_ATTEMPTS:]
    followed = {before.number for before, after in pairwise(attempts) if after.number in by_hand}
    rows = [_row(attempt, now, resumed=attempt.number in followed) for attempt in shown]
    text = table(("ATTEMPT", "STARTED", "RAN", "END", "THEN", "WHY"), rows)
    more = len(attempts) - len(shown)
    return f"{text}\n… and {more} before" if more else text


def _row(attempt: Attempt, now: float, *, resumed: bool) -> tuple[str, ...]:
    ended = attempt.ended
    then = _NEXT.get(attempt.where or "", "-") if attempt.retry else "-"
    return (
        str(attempt.number),
        f"{duration(now - attempt.started)} ago",
        duration((now if ended is None else ended) - attempt.started),
        attempt.end_class or ("-" if ended is None else "ended"),
        "resumed by hand" if resumed else then,
        attempt.message or "-",
    )


def restart_words(counts: Mapping[str, int], by_hand: int) -> str:
    """`restarted after 2 node-failure, 1 preempted; resumed by hand once`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    after = ", ".join(f"{count} {name}" for name, count in ordered)
    times = {1: "once", 2: "twice"}.get(by_hand, f"{by_hand} times")
    parts = [f"restarted after {after}" if after else "", f"resumed by hand {times}"]
    return "; ".join(part for part in parts[: 2 if by_hand else 1] if part)


def goodput_words(found: Goodput) -> str:
    """`93.1% of 4h12m went into steps that were kept, at least 120 steps lost`."""
    share = "-" if found.ratio is None else f"{100 * found.ratio:.1f}%"
    lost = "1 step" if found.lost_steps == 1 else f"{found.lost_steps} steps"
    if found.more_lost:
        lost = f"at least {lost}" if found.lost_steps else "an unknown number of steps"
    return f"{share} of {duration(found.wall_seconds)} went into steps that were kept, {lost} lost"
