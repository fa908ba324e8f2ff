"""The attempts of a run, as its supervisor counts and remembers them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.agent.classes import Past, Verdict
from orchestrator.agent.events import Events
from orchestrator.agent.notice import read_notice

Event = dict[str, Any]
_DAY = 86400.0


def begin_attempt(run_dir: Path, *, shared: bool) -> int:
    """Make the folder of the next attempt; its number. Raises OSError.

    The folder is the epoch: from now on nothing of an earlier attempt can commit a checkpoint.
    """
    folder = run_dir / "attempts"
    mode = 0o2770 if shared else 0o700
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
    while True:
        attempt = 1 + max(attempt_numbers(folder), default=-1)
        made = folder / f"{attempt:03d}"
        try:
            made.mkdir()
        except FileExistsError:
            continue
        made.chmod(mode)
        return attempt


def attempt_numbers(folder: Path) -> list[int]:
    try:
        return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
    except FileNotFoundError:
        return []


class Nodes(NamedTuple):
    """What the agents of one attempt have left."""

    started: dict[int, Event]
    ended: dict[int, Event]
    warned: bool
    requeued: str | None = None
    """Why an agent sent the job back into the queue, where one did (see deputy.py)."""
    hung: float | None = None
    """When a node gave notice that its ranks stand still."""


def read_nodes(run_dir: Path, attempt: int) -> Nodes:
    """One reader for all nodes, once an attempt."""
    notice = read_notice(run_dir / "attempts" / f"{attempt:03d}")
    nodes = Nodes({}, {}, False, hung=notice and notice.given)
    for path in sorted((run_dir / "events").glob(f"a{attempt:03d}-node-*.jsonl")):
        for event in read_events(path):
            if event.get("type") == "signal":
                nodes = nodes._replace(warned=True)
            elif event.get("type") == "requeue":
                nodes = nodes._replace(requeued=str(event.get("reason")))
            elif isinstance(event.get("node"), int):
                kinds = {"node_started": nodes.started, "node_ended": nodes.ended}
                kinds.get(str(event.get("type")), {})[event["node"]] = event
    return nodes


def read_events(path: Path) -> Iterator[Event]:
    """The whole lines of one events file; none where it is missing."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    for line in data.split(b"\n")[:-1]:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("v") == 1:
            yield event


def past_of(events: Iterable[Mapping[str, Any]]) -> Past:
    """From the supervisors' own attempt_ended events, oldest first.

    What ended for good closes the account: a person who starts the run again has the whole
    budget. A host's failures stay, for a day: in months of training every host fails now and then.
    """
    counted, early, lost, now = 0, None, 0, 0.0
    blames: list[tuple[float, str]] = []
    for event in events:
        if event.get("type") != "attempt_ended":
            continue
        now = float(event.get("t") or 0)
        blames += [(now, str(host)) for host in event.get("nodes_failed") or ()]
        counted = counted + bool(event.get("counted")) if event.get("retry") else 0
        early = event.get("early") if event.get("retry") else None
        lost = lost + 1 if event.get("retry") and _was_nobodys(event) else 0
    failures: dict[str, int] = {}
    for _, host in (blame for blame in blames if blame[0] > now - _DAY):
        failures[host] = failures.pop(host, 0) + 1
    return Past(counted, early, failures, lost, frozenset(host for _, host in blames))


def _was_nobodys(event: Mapping[str, Any]) -> bool:
    """Whether the attempt failed without a fault of the run's own."""
    if event.get("class") == "launch-error":
        return not event.get("counted")
    return event.get("class") == "node-failure"


def newest_attempt(events: Iterable[Mapping[str, Any]]) -> int:
    """Of those that began; 0 where none did."""
    begun = (int(event["attempt"]) for event in events if event.get("type") == "job_started")
    return max(begun, default=0)


def requeued_for(events: Iterable[Mapping[str, Any]], why: str) -> bool:
    """Whether this very start of the job is the queue's answer to that complaint."""
    *_, last = ({}, *events)
    return (last.get("type"), last.get("reason")) == ("requeue", why)


def to_be_followed(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """attempt_ended of the newest attempt, where another was to follow and none has begun."""
    last: Mapping[str, Any] | None = None
    for event in events:
        if event.get("type") == "attempt_ended":
            last = event if event.get("retry") else None
        elif event.get("type") == "job_started":
            last = None
    return last


def completed_before(
    events: Iterable[Mapping[str, Any]], job_id: str, since: int = 0
) -> Mapping[str, Any] | None:
    """attempt_ended of the newest attempt, where an earlier start of this very job began it and
    it completed. What failed may have been judged before SLURM said that a node was lost.
    Attempts before `since` are of an earlier submission."""
    last: Mapping[str, Any] | None = None
    own = False
    for event in events:
        if event.get("type") == "job_started":
            own = event.get("job_id") == job_id and int(event["attempt"]) >= since
            last = None
        elif event.get("type") == "attempt_ended":
            last = event if own and event.get("class") == "completed" else None
    return last


def unjudged(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """job_started of the newest attempt, where its supervisor died before it could judge it."""
    last: Mapping[str, Any] | None = None
    for event in events:
        if event.get("type") == "job_started":
            last = event
        elif event.get("type") == "attempt_ended":
            last = None
    return last


def record_end(events: Events, attempt: int, verdict: Verdict) -> None:
    events.append(
        "attempt_ended",
        attempt=attempt,
        **{"class": verdict.name},
        message=verdict.message,
        retry=verdict.retry,
        counted=verdict.counted,
        where=verdict.where,
        nodes_failed=list(verdict.nodes_failed),
        early=verdict.early,
    )
