"""A run that goes on and gets nowhere: nothing was reported or printed for long, or a node's agent
gives no sign of life. Times are those of the files, which one server's clock gives them all."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from orchestrator.diagnose.tail import read_tail
from orchestrator.diagnose.verdict import Evidence, Verdict
from orchestrator.metrics.lines import number
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed
from orchestrator.runs.records import read_plan
from orchestrator.runs.server_time import age
from orchestrator.runs.words import sentence

MOST_LOGS = 1 << 14
"""Looked at for one that is young; of more nothing is known, unless one of them is."""
UNREPORTED = 900.0
"""Seconds without a line from any rank, where nothing tells how fast it should be."""
LEAST = 180.0
INTERVALS = 20
"""So many times the usual time between two reports."""
SILENT = 180.0
"""Seconds without a heartbeat: six of them."""
_REPORTS = 32 * 1024


@dataclass(frozen=True)
class Pace:
    """The newest report of metrics.jsonl, and how far apart reports were."""

    path: Path
    last: float
    """The file's time."""
    step: int | None
    usual: float | None
    longest: float
    """Between any two of them: what took so long once, as an evaluation, may again."""
    line: str
    number: int | None

    @property
    def patience(self) -> float:
        """Seconds without a report that are nothing unusual."""
        if self.usual is None:
            return UNREPORTED
        return max(LEAST, INTERVALS * self.usual, 2 * self.longest)


def standstill(run: Observed, verdict: Verdict) -> Verdict | None:
    """The verdict on a running run that stands still; None where it gets on, as far as files
    tell. `verdict` is what is said of it otherwise."""
    attempt = run.state.attempt
    nodes = [node for node in run.state.nodes if node.ended is None]
    if attempt is None or not nodes:
        return None
    beats = {node.node: _mtime(run.layout.node(attempt, node.node) / "heartbeat") for node in nodes}
    heard = [beat for beat in beats.values() if beat is not None]
    now, here = max(heard, default=0.0), time.time()
    if not heard or here - now > SILENT:
        now += age(run.layout, now, here)
    silent = [number for number, beat in beats.items() if beat is not None and now - beat > SILENT]
    if silent:
        return _silent(run, verdict, silent, now - min(beats[number] or now for number in silent))
    return _still(run, verdict, attempt, [node.node for node in nodes], now)


def _silent(run: Observed, verdict: Verdict, nodes: list[int], seconds: float) -> Verdict:
    hosts = {node.node: node.host for node in run.state.nodes}
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    slurm = run.record.scheduler == "slurm"
    look = "`sinfo -N` tells what SLURM thinks of the node; " if slurm else ""
    words = f"node {nodes[0]} ({hosts[nodes[0]]}){more} gave no sign of life for {_age(seconds)}"
    return Verdict(
        "running",
        verdict.state,
        sentence(f"it is said to run, and {words}"),
        verdict.attempt,
        node=nodes[0],
        rule="no-heartbeat",
        cause=sentence(f"{words}: the node, or its way to the filesystem, may be gone"),
        next=f"{look}`ptx cancel` ends the run.",
    )


def _still(
    run: Observed, verdict: Verdict, attempt: int, nodes: list[int], now: float
) -> Verdict | None:
    pace = _pace(run.layout, attempt)
    logs = _logs(run.layout, attempt, nodes)
    spoke = _newest(islice(logs, MOST_LOGS), young=now - LEAST)
    silence = None if spoke is None else now - spoke[0]
    if (silence is None or silence > LEAST) and next(logs, None) is not None:
        return None
    if pace is not None:
        # A long evaluation reports no step, and goes on printing.
        if silence is not None and silence <= LEAST:
            return None
        quiet, limit = now - pace.last, pace.patience
        what = f"no step was reported for {_age(quiet)} ({_known_of(pace)})"
        what += f", and no rank printed anything for {_age(silence)}" if silence else ""
    elif silence is not None:
        quiet, limit = silence, UNREPORTED
        what = f"no rank printed anything for {_age(quiet)}"
    else:
        return None
    if quiet <= limit:
        return None
    return Verdict(
        "running",
        verdict.state,
        sentence(f"it runs and stands still: {what}"),
        verdict.attempt,
        rule="stands-still",
        cause=sentence(f"{what}: a rank may hang, and the others wait for it"),
        next=_next(run.layout),
        evidence=_evidence(run.layout, pace, spoke),
    )


def _known_of(pace: Pace) -> str:
    before = f"; before, a report came every {_age(pace.usual)}" if pace.usual else ""
    return f"the last was {pace.step}{before}"


def _next(layout: RunLayout) -> str:
    restart = read_plan(layout).get("restart")
    after = restart.get("hang_after") if isinstance(restart, dict) else None
    now = "`py-spy dump --pid PID` on their node shows where they stand, where that is allowed."
    if after is not None:
        begun = "once they made a step or, where they report none, printed anything"
        return f"{now} restart.hang_after ends such ranks, {begun}."
    return f"{now} restart.hang_after in the spec has such ranks say so, and starts them again."


def _evidence(
    layout: RunLayout, pace: Pace | None, spoke: tuple[float, Path] | None
) -> tuple[Evidence, ...]:
    rows = []
    if pace is not None:
        path = str(pace.path.relative_to(layout.root))
        rows.append(Evidence(path, pace.number, pace.line))
    tail = read_tail(spoke[1]) if spoke is not None else None
    if tail is not None and tail.lines:
        index = len(tail.lines) - 1
        path = str(tail.path.relative_to(layout.root))
        rows.append(Evidence(path, tail.number(index), tail.lines[index]))
    return tuple(rows)


def _pace(layout: RunLayout, attempt: int) -> Pace | None:
    path = layout.metrics(attempt)
    tail, written = read_tail(path, _REPORTS), _mtime(path)
    rows = [(index, row) for index, line in enumerate(tail.lines) if (row := _row(line))]
    if not rows or written is None:
        return None
    times = [t for _, row in rows if (t := number(row, "t")) is not None]
    gaps = [after - before for before, after in pairwise(times)]
    index, last = rows[-1]
    step = number(last, "step")
    return Pace(
        path,
        written,
        None if step is None else int(step),
        statistics.median(gaps) if gaps else None,
        max(gaps, default=0.0),
        tail.lines[index],
        tail.number(index),
    )


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # half written, or cut for its length
        return None
    return row if isinstance(row, dict) else None


def _logs(layout: RunLayout, attempt: int, nodes: list[int]) -> Iterator[tuple[float, Path]]:
    """When each rank last printed anything, and where."""
    for node in nodes:
        try:
            entries = sorted(os.scandir(layout.node(attempt, node)), key=lambda one: one.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("rank-") and ".log" in entry.name:
                try:
                    found = entry.stat()
                except OSError:
                    continue
                if found.st_size:
                    yield found.st_mtime, Path(entry.path)


def _newest(logs: Iterator[tuple[float, Path]], young: float) -> tuple[float, Path] | None:
    """The first that is young enough, else the youngest."""
    newest: tuple[float, Path] | None = None
    for log in logs:
        newest = log if newest is None else max(newest, log)
        if newest[0] >= young:
            break
    return newest


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
