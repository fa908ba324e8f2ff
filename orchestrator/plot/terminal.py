"""Runs as text: a legend, and panels side by side where there is room. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from orchestrator.plot.frame import Row, frame
from orchestrator.plot.glyphs import ASCII, UNICODE, colour_of
from orchestrator.plot.panels import Panel, drawable
from orchestrator.plot.picture import Drawn
from orchestrator.plot.scale import Axis, of_steps
from orchestrator.plot.ticks import elapsed, written
from orchestrator.runs.words import printable

_CODES = {
    "cyan": "36",
    "yellow": "33",
    "magenta": "35",
    "green": "32",
    "blue": "34",
    "white": "37",
    "red": "31",
    "dim": "2",
    "bold": "1",
}
NARROWEST = 40
_TWO_COLUMNS = 76
_FIRST_ROWS, _ROWS = 15, 10
_GAP = 2


@dataclass(frozen=True)
class Look:
    width: int
    colour: bool
    unicode: bool


def page(
    runs: Sequence[Drawn],
    look: Look,
    *,
    axis: Axis = "step",
    log: bool = False,
    only: Sequence[str] = (),
) -> str:
    """All panels that have something to show; `only` these quantities, where it names any."""
    panels = _panels(runs, only)
    steps = of_steps(runs, axis)
    glyphs = UNICODE if look.unicode else ASCII
    width = max(NARROWEST, look.width)
    half = (width - _GAP) // 2 if width >= _TWO_COLUMNS else width
    blocks = []
    for number, panel in enumerate(panels):
        size = (width, _FIRST_ROWS) if number == 0 else (half, _ROWS)
        blocks.append(frame(panel, runs, steps, axis, size, glyphs, log=log))
    first, rest = blocks[:1], blocks[1:]
    rows: list[Row] = [row for block in first for row in [*block, []]]
    for pair in _pairs(rest) if half < width else [[block] for block in rest]:
        rows += [*_beside(pair), []]
    head = [_summary(run, number, runs, look) for number, run in enumerate(runs)]
    body = [_painted(row, look) for row in rows]
    return "\n".join([*(line for lines in head for line in lines), "", *body]).rstrip("\n")


def _panels(runs: Sequence[Drawn], only: Sequence[str]) -> list[Panel]:
    there = drawable((run.keys for run in runs), only)
    return [panel for panel in there if panel.brief or only] or list(there)


def _pairs(blocks: list[list[Row]]) -> list[list[list[Row]]]:
    return [blocks[number : number + 2] for number in range(0, len(blocks), 2)]


def _beside(blocks: list[list[Row]]) -> list[Row]:
    if len(blocks) == 1:
        return blocks[0]
    left, right = blocks
    return [[*a, *[(" ", "")] * _GAP, *b] for a, b in zip(left, right, strict=True)]


def _summary(run: Drawn, number: int, runs: Sequence[Drawn], look: Look) -> list[str]:
    """A run's line of the legend, and one for each time that it was started again."""
    mark = _paint(f"{run.mark} ", colour_of(number), look) if len(runs) > 1 else ""
    widest = max(len(printable(other.run_id)) for other in runs)
    parts = [printable(run.run_id).ljust(widest), run.state, *_numbers(run)]
    indent = " " * (2 if len(runs) > 1 else 0)
    dotted = UNICODE.restart if look.unicode else ASCII.restart
    restarts = [
        indent
        + _paint(f"{dotted} attempt {start.attempt} from step {start.step:.0f}{why}", "dim", look)
        for before, start in zip(run.starts, run.starts[1:], strict=False)
        for end in [printable(run.ends.get(before.attempt, ""))]
        for why in [f", after {end}" if end else ""]
    ]
    shown = (
        restarts
        if len(restarts) <= 4
        else [indent + _paint(f"{dotted} {len(restarts)} restarts", "dim", look)]
    )
    first, *rest = _packed(parts, look.width - len(indent))
    return [mark + first, *(f"  {indent}{line}" for line in rest), *shown]


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """Side by side, on further lines where there is no room for them."""
    lines = [parts[0]]
    for part in parts[1:]:
        joined = f"{lines[-1]}  {part}"
        if len(joined) <= width - 2 * (len(lines) > 1):
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def _numbers(run: Drawn) -> list[str]:
    parts = []
    if run.last_step is not None:
        parts.append(f"step {run.last_step:.0f}" + (f"/{run.steps}" if run.steps else ""))
    for key, word in (("loss", "loss"), ("eval_loss", "held-out")):
        if key in run.not_finite:
            last = f" (last {written(run.last[key], 'number')})" if key in run.last else ""
            parts.append(f"{word} not finite since step {run.not_finite[key]}{last}")
        elif key in run.last:
            parts.append(f"{word} {written(run.last[key], 'number')}")
    if run.seconds:
        parts.append(elapsed(run.seconds))
    return parts


def _painted(row: Row, look: Look) -> str:
    if not look.colour:
        return "".join(character for character, _ in row).rstrip()
    parts = []
    for colour, cells in groupby(row, key=lambda cell: cell[1]):
        parts.append(_paint("".join(character for character, _ in cells), colour, look))
    return "".join(parts).rstrip()


def _paint(text: str, colour: str, look: Look) -> str:
    if not look.colour or not colour or not text.strip():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"
