"""`ptx top` on one screen, and as JSON. The keys are public: tests/cli/public.json holds them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.cli.output import duration, paint, terminal_columns
from orchestrator.cli.progress import rate
from orchestrator.cli.wrapping import wrapped
from orchestrator.metrics.board import GpuRow, NodeRow, RankRow, Snapshot
from orchestrator.metrics.lines import number
from orchestrator.runs.attempts import history
from orchestrator.runs.words import clause, printable

PAGE_ROWS = 24
"""Nodes, and ranks, that a page without a height shows."""
_NODES = ("NODE", "HOST", "CORES", "MEM GiB", "GPU", "GPU GiB", "HEARTBEAT", "")
_RANKS = (
    *("RANK", "NODE", "GPU", "UTIL", "GPU GiB", "POWER", "TEMP", "CORES", "MEM GiB", "S/STEP"),
    "",
)
_TEXT = {"HOST", ""}
"""Columns that are no numbers, and stand to the left."""
_GIB = 1 << 30


@dataclass(frozen=True)
class Room:
    """None where nothing limits it."""

    columns: int | None
    rows: int | None

    @classmethod
    def of_screen(cls) -> Room:
        size = shutil.get_terminal_size()
        return cls(size.columns, size.lines)

    @classmethod
    def of_page(cls) -> Room:
        return cls(terminal_columns(), None)


def top_lines(seen: Snapshot, room: Room) -> list[str]:
    """As many lines and columns as there is room for; of many nodes and ranks the worst."""
    head = _head(seen, room.columns)
    free = None if room.rows is None else max(4, room.rows - len(head) - 6)
    nodes, ranks = _shares(len(seen.nodes), len(seen.ranks), free)
    blocks = [
        head,
        _block(_NODES, _worst_nodes(seen)[:nodes], _node_cells, _rest_of_nodes(seen, nodes)),
        _block(_RANKS, _worst_ranks(seen)[:ranks], _rank_cells, _rest_of_ranks(seen, ranks)),
    ]
    lines = [("", "")]
    for block in blocks:
        lines += [*block, ("", "")] if block else []
    cut = [(text[: room.columns] if room.columns else text, colour) for text, colour in lines[1:-1]]
    shown = cut[: room.rows] if room.rows else cut
    return [paint(text, colour) if colour else text for text, colour in shown]


def end_lines(seen: Snapshot, room: Room) -> str:
    run = seen.run
    said, state = clause(run.state.reason.rstrip(".")), run.state.state.value
    what = said if not said or said.startswith(state) else f"{state}: {said}"
    words = f"{run.record.run_id} {what or state}"
    if seen.progress.step is not None:
        words += f", after step {_step(seen)}"
    return wrapped(f"{words}.", room.columns)


def _head(seen: Snapshot, columns: int | None) -> list[tuple[str, str]]:
    run, progress = seen.run, seen.progress
    state = run.state.state.value
    age, attempt = _ages(seen)
    size = f"{len(seen.nodes):,} of {_many(run.record.nodes, 'node')}"
    size += f", {_many(run.record.world_size, 'rank')}"
    first = _fitting([run.record.run_id, state, age, attempt, size], columns)
    parts: list[str] = []
    if progress.step is not None:
        parts.append(f"step {_step(seen)}")
    if progress.seconds_per_step is not None:
        parts.append(f"{_seconds(progress.seconds_per_step)} a step")
    speed = _number(seen, "samples_per_s")
    if progress.tokens_per_s is not None:
        parts.append(f"{rate(progress.tokens_per_s)} tokens/s")
    elif speed is not None:
        parts.append(f"{rate(speed)} samples/s")
    if progress.loss is not None:
        known = math.isfinite(progress.loss)
        parts.append(f"loss {progress.loss:.4g}" if known else "loss not finite")
    eta = None if run.state.state.ended else progress.eta(seen.at)
    if eta is not None:
        parts.append(f"ETA {duration(eta)}")
    if progress.reported is not None:
        parts.append(f"reported {duration(seen.at - progress.reported)} ago")
    wait, step = _number(seen, "data_wait_longest"), progress.seconds_per_step
    if wait is not None and step:
        parts.append(f"waits for data {min(1.0, wait / step):.0%}")
    second = _fitting(parts, columns) or run.state.reason
    return [(printable(first), "bold"), (printable(second), "")]


def _ages(seen: Snapshot) -> tuple[str, str]:
    """For how long the run has been at it, what lay between attempts too; and, of several, the
    newest one's number and time."""
    run, state = seen.run, seen.run.state
    end = state.ended or seen.at
    if state.started is None:
        attempt = f"attempt {state.attempt}" if state.attempt else ""
        return duration(end - run.record.created), attempt
    first = min((one.started for one in history(run.events)), default=state.started)
    whole = duration(end - min(first, state.started))
    if not state.attempt:
        return whole, ""
    return whole, f"attempt {state.attempt}: {duration(end - state.started)}"


def _fitting(parts: Sequence[str], columns: int | None) -> str:
    """Side by side, without the last ones where there is no room for them."""
    told = [part for part in parts if part]
    while columns and len(told) > 1 and len("  ".join(told)) > columns:
        told.pop()
    return "  ".join(told)


def _step(seen: Snapshot) -> str:
    progress = seen.progress
    return f"{progress.step}/{progress.steps}" if progress.steps else str(progress.step)


def _number(seen: Snapshot, key: str) -> float | None:
    return number(dict(seen.report), key)


def _shares(nodes: int, ranks: int, free: int | None) -> tuple[int, int]:
    """How many of each are shown: ranks get what nodes leave, and at least half."""
    if free is None:
        return PAGE_ROWS, PAGE_ROWS
    for_nodes = min(nodes, max(1, free - ranks, free // 2 if nodes > 1 else 1))
    return for_nodes, max(1, free - for_nodes)


def _worst_nodes(seen: Snapshot) -> list[NodeRow]:
    """Those in trouble first, then those that were heard of least recently, where not all fit."""
    troubled = {row.node for row in seen.ranks if row.notes}
    return sorted(
        seen.nodes,
        key=lambda row: (not row.notes, row.node not in troubled, row.node),
    )


def _worst_ranks(seen: Snapshot) -> list[RankRow]:
    return sorted(seen.ranks, key=lambda row: (not row.notes, not row.slow, row.rank))


def _rest_of_nodes(seen: Snapshot, shown: int) -> str:
    rest = _worst_nodes(seen)[shown:]
    return f"… and {len(rest):,} more nodes{_summary(rest)}" if rest else ""


def _summary(rest: Sequence[NodeRow]) -> str:
    """What can be said of many at once."""
    used = [gpu.util for row in rest for gpu in row.gpus if gpu.util is not None]
    ages = [row.heartbeat for row in rest if row.heartbeat is not None]
    troubled = sum(bool(row.notes) for row in rest)
    parts = [
        f"{troubled} in trouble" if troubled else "",
        f"GPUs at {sum(used) / len(used):.0f}% ({min(used):.0f} to {max(used):.0f})"
        if used
        else "",
        f"heartbeats up to {duration(max(ages))} old" if ages else "",
    ]
    told = ", ".join(part for part in parts if part)
    return f": {told}" if told else ""


def _rest_of_ranks(seen: Snapshot, shown: int) -> str:
    rest = _worst_ranks(seen)[shown:]
    if not rest:
        return ""
    troubled = sum(bool(row.notes) for row in rest)
    told = f", {troubled:,} of them marked" if troubled else ""
    return f"… and {len(rest):,} more ranks{told}"


def _block(
    header: Sequence[str], rows: Sequence[Any], cells: Any, rest: str
) -> list[tuple[str, str]]:
    """Lines with their colours; columns in which nobody has anything are left out."""
    if not rows:
        return []
    table = [cells(row) for row in rows]
    kept = [n for n, _ in enumerate(header) if any(line[n] not in ("-", "") for line in table)]
    widths = {n: max(len(header[n]), *(len(line[n]) for line in table)) for n in kept}

    def joined(line: Sequence[str]) -> str:
        padded = [
            line[n].ljust(widths[n]) if header[n] in _TEXT else line[n].rjust(widths[n])
            for n in kept
        ]
        return "  ".join(padded).rstrip()

    lines = [(joined(header), "bold")]
    for row, line in zip(rows, table, strict=True):
        lines.append((joined(line), "yellow" if row.notes else ""))
    return [*lines, (rest, "dim")] if rest else lines


def _node_cells(row: NodeRow) -> list[str]:
    used = [gpu.util for gpu in row.gpus if gpu.util is not None]
    held = [(gpu.memory_used, gpu.memory_total) for gpu in row.gpus]
    most = max((a for a, _ in held if a is not None), default=None)
    total = max((b for _, b in held if b is not None), default=None)
    return [
        str(row.node),
        printable(row.host),
        _of(row.cpu_used, row.cpu_cores, 1.0),
        _of(row.memory_used, row.memory_limit, _GIB),
        f"{sum(used) / len(used):.0f}%" if used else "-",
        _of(most, total, _GIB),
        "-" if row.heartbeat is None else duration(row.heartbeat),
        ", ".join(map(printable, row.notes)),
    ]


def _rank_cells(row: RankRow) -> list[str]:
    gpu = row.gpu or GpuRow(None, None, None, None, None, None, None, (), None, None, ())
    return [
        str(row.rank),
        str(row.node),
        "-" if gpu.index is None else str(gpu.index),
        "-" if gpu.util is None else f"{gpu.util:.0f}%",
        _of(gpu.memory_used, gpu.memory_total, _GIB),
        "-" if gpu.power is None else f"{gpu.power:.0f} W",
        "-" if gpu.temperature is None else f"{gpu.temperature:.0f} °C",
        "-" if row.cpu is None else f"{row.cpu:.1f}",
        "-" if row.rss is None else f"{row.rss / _GIB:.1f}",
        "-" if row.seconds is None else _seconds(row.seconds).removesuffix(" s"),
        ", ".join(map(printable, row.notes)),
    ]


def _of(part: float | None, whole: float | None, unit: float) -> str:
    """`9.5/96`, `100/512`."""
    if part is None:
        return "-"
    value = part / unit
    told = f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"
    return told if whole is None else f"{told}/{whole / unit:.0f}"


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def top_fields(seen: Snapshot) -> dict[str, Any]:
    run, progress = seen.run, seen.progress
    return {
        "run_id": run.record.run_id,
        "state": run.state.state.value,
        "attempt": run.state.attempt,
        "t": seen.at,
        "step": progress.step,
        "steps": progress.steps,
        "seconds_per_step": progress.seconds_per_step,
        "tokens_per_s": progress.tokens_per_s,
        "samples_per_s": _number(seen, "samples_per_s"),
        "reported": progress.reported,
        "nodes": [asdict(row) for row in seen.nodes],
        "ranks": [
            {**asdict(row), "gpu": None if row.gpu is None else row.gpu.index} for row in seen.ranks
        ],
    }
