"""Stragglers and steps that wait for data, from what rank 0 has reported. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from orchestrator.diagnose.slow_finding import Finding, listed, seconds
from orchestrator.diagnose.verdict import Evidence
from orchestrator.metrics.pace import Period, Slow, marked

REPORTS, STEPS, SECONDS = 3, 20, 2.0
"""Nothing is said on less than this."""
USUALLY = 0.8
"""Share of the reports in which a rank is marked (`metrics.pace.marked`): another rank each time is
noise, or samples of different lengths."""
WAITING = 0.2
"""Share of the time that one rank waits for its data at least, ..."""
READING = 0.6
"""... and share of a step that the median rank's reading takes at least. Reading goes on beside
training, so where it takes less than a step it holds nobody up, and one rank that waits has slower
data than the others. Both are asked of the whole and of `USUALLY` of the reports."""
WAITED = 0.001
"""Seconds a step: of smaller steps everything is a large share."""


def enough(periods: Sequence[Period]) -> bool:
    return (
        len(periods) >= REPORTS
        and sum(one.steps for one in periods) >= STEPS
        and sum(one.seconds for one in periods) >= SECONDS
    )


def stragglers(periods: Sequence[Period], path: str, attempt: int) -> tuple[Finding, ...]:
    """At most one finding, of all ranks that the others usually wait for. `path` is that of the
    reports in the run folder."""
    known = [one for one in periods if one.slow and one.median is not None]
    if not enough(known):
        return ()
    times = Counter(
        rank for one in known for rank in marked(one.slow, one.median or 0.0, one.step_seconds)
    )
    named = sorted(rank for rank, count in times.items() if count >= USUALLY * len(known))
    if not named:
        return ()
    rows = {rank: _rows(known, rank) for rank in named}
    named.sort(key=lambda rank: -median(row.seconds for row in rows[rank]))
    usual = median(one.median for one in known if one.median is not None)
    own = {rank: median(row.seconds for row in rows[rank]) for rank in named}
    data = {rank: median(row.data for row in rows[rank]) for rank in named}
    by_data = all(data[rank] > (own[rank] - usual) / 2 for rank in named)
    needs = listed(f"rank {rank} needs {seconds(own[rank])}" for rank in named)
    sentence = (
        f"{needs} a step by itself (forward and data), the others {seconds(usual)}: all wait for "
        f"{'it' if len(named) == 1 else 'them'}, {seconds(own[named[0]] - usual)} of each step of "
        f"{seconds(_step_seconds(known))}."
    )
    cause = (
        f"its data takes longer than the others', {seconds(data[named[0]])} a step"
        if by_data
        else "its device or its cores are slower or shared, or its part of the batch takes longer"
    )
    following = (
        "Look at where this rank's data is read from."
        if by_data
        else "Compare clocks, temperature and other processes on its node: ptx top; another node "
        "in its place shows whether it is the machine."
    )
    last = next(one for one in reversed(known) if any(s.rank == named[0] for s in one.slow))
    return (
        Finding(
            "straggler",
            sentence,
            cause,
            following,
            (_evidence(last, path, _slow_text(last)),),
            attempt,
            tuple(named),
            by_data=by_data,
        ),
    )


def data_bound(periods: Sequence[Period], path: str, attempt: int) -> tuple[Finding, ...]:
    """At most one finding: the ranks stand still for data, since reading it is slow on most."""
    known = [one for one in periods if one.data_wait is not None and one.data_read is not None]
    if not enough(known) or sum(map(_waits, known)) < USUALLY * len(known):
        return ()
    steps = sum(one.steps for one in known)
    waited = sum((one.data_wait or 0.0) * one.steps for one in known) / steps
    read = sum((one.data_read or 0.0) * one.steps for one in known) / steps
    whole = _step_seconds(known)
    if waited < WAITED or waited < WAITING * whole or read < READING * whole:
        return ()
    sentence = (
        f"training waits for data {waited / whole:.0%} of the time, {seconds(waited)} of each step "
        f"of {seconds(whole)}: reading a step's data takes a rank {seconds(read)}."
    )
    last = known[-1]
    text = (
        f'"data_wait_longest": {last.data_wait:g}, "data_read_median": {last.data_read:g}, '
        f'"seconds": {last.seconds:g} of {last.steps} steps'
    )
    return (
        Finding(
            "data-bound",
            sentence,
            "reading and preparing a batch takes longer than computing on it",
            "Prepare the data once and store it, read it from a faster disk, or give the ranks "
            "more cores (resources.cpus_per_task).",
            (_evidence(last, path, text),),
            attempt,
        ),
    )


def _waits(period: Period) -> bool:
    waited, read = period.data_wait or 0.0, period.data_read or 0.0
    return waited >= WAITING * period.step_seconds and read >= READING * period.step_seconds


def _rows(periods: Sequence[Period], rank: int) -> list[Slow]:
    return [slow for one in periods for slow in one.slow if slow.rank == rank]


def _step_seconds(periods: Sequence[Period]) -> float:
    return sum(one.seconds for one in periods) / sum(one.steps for one in periods)


def _slow_text(period: Period) -> str:
    rows = ", ".join(f"[{one.rank}, {one.seconds:g}, {one.data:g}]" for one in period.slow)
    return f'"slow_ranks": [{rows}], "rank_seconds_median": {period.median:g}'


def _evidence(period: Period, path: str, text: str) -> Evidence:
    return Evidence(path, period.line.number, text)
