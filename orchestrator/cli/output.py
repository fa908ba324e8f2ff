"""How ptx speaks: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from orchestrator.cli.wrapping import columns_of, wrapped, wrapped_command
from orchestrator.runs.words import printable

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
STATE_COLOURS = {
    "running": "cyan",
    "completed": "green",
    "pending": "yellow",
    "submitting": "yellow",
    "unknown": "yellow",
    "preempted": "yellow",
    "cancelled": "dim",
}
"""States that are not here went wrong and are red."""


def emit(text: str) -> None:
    """One or more lines of data."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def emit_json(fields: dict[str, Any]) -> None:
    """The one object a command prints under --json."""
    emit(json.dumps({"v": 1, **fields}, ensure_ascii=False, allow_nan=False))


def emit_json_list(fields: dict[str, Any], key: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """The same with a list as its last value, of which one row at a time is in memory."""
    head = json.dumps({"v": 1, **fields, key: []}, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(head.removesuffix("]}"))
    between = ""
    for row in rows:
        sys.stdout.write(between + json.dumps(row, ensure_ascii=False, allow_nan=False))
        between = ", "
    sys.stdout.write("]}\n")


def emit_bytes(data: bytes) -> None:
    """Bytes of a file exactly as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def note(text: str, *, label: str = "", colour: str = "") -> None:
    """A word to the person, out of the data's way, beside a `label`. Lines that quote something,
    behind `  | `, are left as they are."""
    columns = columns_of(sys.stderr)
    indent = len(label) + 1 if label else 0
    head = f"{paint(label, colour, stream=sys.stderr) if colour else label} " if label else ""
    lines = [_wrapped_line(line, columns, indent) for line in text.split("\n")]
    _tell(head + "\n".join(lines))


def _wrapped_line(line: str, columns: int | None, indent: int) -> str:
    if line.startswith("  | "):
        return line
    label = "  help: " if line.startswith("  help: ") else ""
    return label + wrapped(line.removeprefix(label), columns, indent=indent + len(label))


def next_commands(*commands: str) -> None:
    """What to type now."""
    for number, command in enumerate(commands):
        label = "next: " if number == 0 else "      "
        _tell(label + wrapped_command(command, columns_of(sys.stderr), indent=len(label)))


def _tell(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr)  # noqa: T201 - this is where ptx prints


def labelled(label: str, text: str, width: int) -> str:
    """One row of a page on stdout: `label` in `width` columns, then the text, of one line or more.
    A line that has colours is left as it is."""
    columns = columns_of(sys.stdout)
    lines = [
        line if "\x1b" in line else wrapped(line, columns, indent=width)
        for line in text.split("\n")
    ]
    return f"{paint(label.ljust(width - 1), 'dim')} " + f"\n{' ' * width}".join(lines)


def coloured(stream: TextIO) -> bool:
    """Colour goes to terminals only, and never under NO_COLOR (see no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, colour: str, *, stream: TextIO | None = None) -> str:
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def paint_state(state: str) -> str:
    return paint(state, STATE_COLOURS.get(state.strip(), "red"))


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    state_column: int | None = None,
    cut: bool = True,
) -> str:
    """Aligned columns. On a terminal the last one is `cut` to its width, elsewhere never."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    room = _room(sum(widths[:-1]) + 2 * (len(widths) - 1)) if cut else None
    lines = [paint(_line(header, widths, room), "bold")]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        if state_column is not None:
            cells[state_column] = paint_state(cells[state_column])
        lines.append("  ".join([*cells, _cut(row[-1], room)]).rstrip())
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int], room: int | None) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
    return "  ".join([*cells, _cut(row[-1], room)]).rstrip()


def _room(taken: int) -> int | None:
    """Characters left for the last column; None where nothing limits them."""
    columns = terminal_columns()
    return None if columns is None else max(10, columns - taken)


def terminal_columns() -> int | None:
    """Width of stdout's terminal; None where it is none."""
    return columns_of(sys.stdout)


def _cut(text: str, room: int | None) -> str:
    return text if room is None or len(text) <= room else f"{text[: room - 1]}…"


def duration(seconds: float) -> str:
    """`8s`, `3m12s`, `2h05m`, `4d03h`: two units at most."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, secs = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{secs:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h"


def size(number: int) -> str:
    """Bytes as `512 B`, `1.4 MiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
