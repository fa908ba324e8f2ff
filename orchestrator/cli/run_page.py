"""Everything about one run, on one screen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.cli.attempt_table import attempt_table, goodput_words, restart_words
from orchestrator.cli.disk import full_disk_words
from orchestrator.cli.last_words import Judged, judged, last_words
from orchestrator.cli.output import duration, labelled, paint_state, size, table, terminal_columns
from orchestrator.cli.progress import rate
from orchestrator.cli.run_json import run_goodput
from orchestrator.cli.run_table import loss, step
from orchestrator.diagnose.witness import TOLD
from orchestrator.runs.attempts import history, restarts, resumed
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed
from orchestrator.runs.state import NodeState, State
from orchestrator.runs.words import exit_name, printable

SHOWN_NODES = 16
SHOWN_RANKS = 16
_LABEL = 10
_ROOMY = 72
"""Columns that a row of ranks needs with all of its log's path."""


def run_page(
    run: Observed, metrics: Mapping[str, Any] | None, now: float, found: Judged | None = None
) -> str:
    """`metrics` is the last record of the newest attempt; `found`, where it is known already, the
    verdict on the run."""
    found = found or judged(run)
    blocks = [
        _head(run, found, metrics, now),
        attempt_table(history(run.events), resumed(run.events), now),
        _nodes(run, found, now),
        _ranks(run, found),
        last_words(run, found),
        _files(run, found),
    ]
    return "\n\n".join(block for block in blocks if block)


def _head(run: Observed, found: Judged, metrics: Mapping[str, Any] | None, now: float) -> str:
    record, state = run.record, run.state
    job = f", job {state.job_id}" if state.job_id else ""
    lines = [
        ("run", f"{record.run_id}  {paint_state(state.state.value)}"),
        ("", found.sentence if state.words != state.state.value else ""),
        ("spec", printable(record.spec_path)),
        ("on", f"{record.scheduler}{job}, {record.launcher}"),
        ("size", _size(record.nodes, record.procs_per_node)),
        ("time", _times(run, now)),
    ]
    if len(state.attempts) > 1:
        words = restart_words(restarts(run.events), len(resumed(run.events)))
        lines.append(("attempts", f"{len(state.attempts)}: {words}"))
    if metrics is not None:
        lines.append(("progress", _progress(metrics, now)))
    kept = run_goodput(run, now)
    if kept is not None:
        lines.append(("training", goodput_words(kept)))
    if not state.final:
        lines.append(("disk", full_disk_words(run.layout.root)))
    return "\n".join(labelled(label, text, _LABEL) for label, text in lines if text)


def _size(nodes: int, procs: int) -> str:
    node = "1 node" if nodes == 1 else f"{nodes} nodes"
    rank = "1 rank" if procs == 1 else f"{procs} ranks"
    total = f" = {nodes * procs}" if nodes > 1 else ""
    return f"{node} x {rank}{total}"


def _times(run: Observed, now: float) -> str:
    state, created = run.state, run.record.created
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
    parts = [f"submitted {when} ({duration(now - created)} ago)"]
    if state.started is not None:
        first = min((attempt.started for attempt in history(run.events)), default=state.started)
        parts.append(f"started after {duration(first - created)}")
        if len(state.attempts) > 1:
            return ", ".join(parts)  # the attempts have a table of their own
        if state.ended is not None:
            parts.append(f"ran {duration(state.ended - state.started)}")
        elif state.state is State.RUNNING:
            parts.append(f"running for {duration(now - state.started)}")
    return ", ".join(parts)


def _progress(metrics: Mapping[str, Any], now: float) -> str:
    told = loss(metrics)
    parts = [f"step {step(metrics)}", f"loss {'not finite' if told == 'nan' else told}"]
    if isinstance(metrics.get("tokens_per_s"), int | float):
        parts.append(f"{rate(metrics['tokens_per_s'])} tokens/s")
    if isinstance(metrics.get("t"), int | float):
        parts.append(f"{duration(now - metrics['t'])} ago")
    return "  ".join(parts)


def _nodes(run: Observed, found: Judged, now: float) -> str:
    nodes = run.state.nodes
    if not nodes:
        return ""
    # Who began it and those in trouble first: on a thousand nodes they are what one looks for.
    nodes = tuple(
        sorted(
            nodes,
            key=lambda one: (one.node != found.node, one.reason in ("", "completed"), one.node),
        )
    )
    rows = [_node_row(run, node, now) for node in nodes[:SHOWN_NODES]]
    text = table(("NODE", "HOST", "STATE", "TIME", "RANKS"), rows, state_column=2)
    more = len(nodes) - SHOWN_NODES
    return f"{text}\n… and {more} more nodes" if more > 0 else text


def _node_row(run: Observed, node: NodeState, now: float) -> tuple[str, ...]:
    state = node.reason or ("ended" if node.ended else "running")
    if node.ended is None and run.state.state is not State.RUNNING:
        state = "no report"
    last = node.ended or (now if state == "running" else None)
    good = sum(code == 0 for code in node.ranks.values())
    return (
        str(node.node),
        node.host,
        state,
        duration(last - node.started) if last else "-",
        f"{good} of {run.record.procs_per_node} ok" if node.ended else "-",
    )


def _ranks(run: Observed, found: Judged) -> str:
    """Who began it first, then failed ranks, those that were told to end and the lowest ones, up
    to a screenful."""
    state, attempt = run.state, run.state.attempt
    if attempt is None:
        return ""
    codes = state.ranks
    known = [
        (node.node, rank)
        for number, node in enumerate(state.nodes)
        for rank in _ranks_of(
            run.layout, attempt, node, look=number < SHOWN_NODES or node.node == found.node
        )
    ]
    if not known:
        return ""
    known.sort(key=lambda item: (item[1] != found.rank, *_trouble(codes.get(item[1], 0)), item[1]))
    columns = terminal_columns()
    narrow = columns is not None and columns < _ROOMY
    rows = []
    for node, rank in known[:SHOWN_RANKS]:
        words = exit_name(codes[rank]) if rank in codes else "no record"
        if rank not in codes and state.state is State.RUNNING:
            words = "running"
        log = run.layout.rank_log(attempt, node, rank)
        place = log.name if narrow else str(log.relative_to(run.layout.root))
        rows.append((str(rank), str(node), words, _written(log), place))
    where = "LOG" if narrow else "LOG (in the folder below)"
    text = table(("RANK", "NODE", "EXIT", "WROTE", where), rows, cut=False)
    more = run.record.world_size - len(rows)
    return f"{text}\n… and {more} more ranks" if more > 0 else text


def _trouble(code: int) -> tuple[bool, bool]:
    """Sorts those that failed by themselves before those that were told to end."""
    return code == 0, code in TOLD


def _written(log: Path) -> str:
    try:
        return size(log.stat().st_size)
    except OSError:
        return "-"


def _ranks_of(layout: RunLayout, attempt: int, node: NodeState, *, look: bool) -> set[int]:
    """Which ranks a node has: its rendezvous may give it any. `look` for those that still run."""
    logs = layout.node(attempt, node.node).glob("rank-*.log") if look else ()
    numbers = (log.stem.removeprefix("rank-") for log in logs)
    return {*node.ranks, *(int(number) for number in numbers if number.isdecimal())}


def _files(run: Observed, found: Judged) -> str:
    layout, attempt = run.layout, run.state.attempt
    lines = [("folder", str(layout.root))]
    if layout.scheduler_log.exists():
        lines.append(("log", str(layout.scheduler_log)))
    if attempt is not None and run.state.nodes:
        node = run.state.nodes[0].node if found.node is None else found.node
        launcher_log = layout.node(attempt, node) / "launcher.log"
        if launcher_log.exists():
            lines.append(("", str(launcher_log)))
    return "\n".join(labelled(label, text, _LABEL) for label, text in lines)
