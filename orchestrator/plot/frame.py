"""One panel as characters: curves between two axes with numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.plot.canvas import Canvas, Cell
from orchestrator.plot.glyphs import Glyphs, colour_of
from orchestrator.plot.panels import Panel
from orchestrator.plot.picture import Drawn
from orchestrator.plot.scale import (
    Axis,
    Scale,
    of_values,
    step_ticks,
    value_ticks,
    values_of,
)
from orchestrator.plot.strokes import Strokes
from orchestrator.plot.ticks import elapsed, written

_X_TICK = 12
"""Columns that a number below the axis wants."""

Row = list[Cell]


def frame(
    panel: Panel,
    runs: Sequence[Drawn],
    steps: Scale,
    axis: Axis,
    size: tuple[int, int],
    glyphs: Glyphs,
    *,
    log: bool = False,
) -> list[Row]:
    """`size` in columns and rows of the whole, with the title and the numbers. Runs keep their
    colour whether or not all of them are in this panel."""
    width, height = size
    rows = max(2, height - 3)
    asked = log and panel.can_log
    scale = of_values(panel, runs, log=asked)
    labels = _labels(scale, rows, panel)
    gutter = max(len(text) for text in labels.values()) if labels else 0
    several = len(runs) > 1
    columns = max(4, width - gutter - 2 - (2 if several else 0))
    canvas = Canvas(columns, rows, glyphs.braille)
    ends = _draw(Strokes(canvas, steps, scale, axis, glyphs), panel, runs)
    margin = _end_marks(ends, rows) if several else {}
    body = [
        [
            *_plain(f"{labels.get(row, ''):>{gutter}} ", "dim"),
            (glyphs.tick if row in labels else glyphs.upright, "dim"),
            *cells,
            *([(" ", ""), margin.get(row, (" ", ""))] if several else []),
        ]
        for row, cells in enumerate(canvas.cells())
    ]
    title = _title(panel, runs, glyphs, log=scale.log)
    if asked:
        title += _plain(_left_out(panel, runs, log=scale.log), "red")
    below = _x_axis(steps, axis, gutter + 1, columns, glyphs)
    return [_fit(row, width) for row in (title, *body, *below)]


def _title(panel: Panel, runs: Sequence[Drawn], glyphs: Glyphs, *, log: bool) -> Row:
    unit = ", ".join(filter(None, (panel.unit, "log" if log else "")))
    row = [*_plain(panel.title, "bold"), *_plain(f"  {unit}" if unit else "", "dim")]
    if any(panel.beside in run.curves for run in runs):
        row += _plain(f"  {glyphs.dot} held-out", "dim")
    bad = [curve for run in runs if (curve := run.curves.get(panel.key)) and any(curve.not_finite)]
    if bad:
        count = sum(sum(curve.not_finite) for curve in bad)
        row += _plain(f"  {glyphs.bad} not finite: {count}", "red")
    return row


def _left_out(panel: Panel, runs: Sequence[Drawn], *, log: bool) -> str:
    """What a log scale has no place for."""
    count = sum(value <= 0 for value in values_of(panel, runs))
    if not log:
        return "  not log: nothing above 0" if count else ""
    return f"  {count} not above 0, left out" if count else ""


def _labels(scale: Scale, rows: int, panel: Panel) -> dict[int, str]:
    """Row -> number beside it."""
    found: dict[int, str] = {}
    for tick in value_ticks(scale, max(2, rows // 2), panel):
        place = scale.at(tick)
        if place is not None and 0 <= place <= 1:
            found.setdefault(round((1 - place) * (rows - 1)), written(tick, panel.kind, tick=True))
    return found


def _x_axis(steps: Scale, axis: Axis, indent: int, columns: int, glyphs: Glyphs) -> tuple[Row, Row]:
    line = [glyphs.level] * columns
    numbers = [" "] * (columns + indent + 1)
    free_from = 0
    for tick in step_ticks(steps, max(1, columns // _X_TICK), axis):
        column = round((steps.at(tick) or 0) * (columns - 1))
        text = elapsed(tick) if axis == "time" else written(tick, "rate")
        start = max(0, min(indent + 1 + column - len(text) // 2, len(numbers) - len(text)))
        if start < free_from:
            continue
        line[column] = glyphs.down
        numbers[start : start + len(text)] = text
        free_from = start + len(text) + 1
    word = "time" if axis == "time" else "step"
    if free_from + len(word) + 1 <= len(numbers) and len(numbers) - len(word) >= free_from + 1:
        numbers[-len(word) :] = word
    rule = [*_plain(" " * indent, ""), (glyphs.corner, "dim"), *((c, "dim") for c in line)]
    return rule, _plain("".join(numbers), "dim")


def _draw(strokes: Strokes, panel: Panel, runs: Sequence[Drawn]) -> list[tuple[int, Cell]]:
    """All curves; the row at which each ends, with its mark."""
    ends = []
    for number, run in enumerate(runs):
        curve = run.curves.get(panel.key)
        if not curve or panel.instead_of in run.curves:
            continue
        cell = (run.mark, colour_of(number))
        points = strokes.curve(run, curve, run.mark if len(runs) > 1 else "*", cell[1])
        if len(runs) > 1 and points:
            if strokes.glyphs.braille:  # in ASCII the curve itself is made of its letter
                strokes.letters(points, cell, number, len(runs))
            ends.append((strokes.cell(points[-1])[1], cell))
        strokes.bad(run, curve)
        if panel.beside in run.curves:
            strokes.dots(run, run.curves[panel.beside], cell[1])
    for run in runs:  # behind the curves, which a run that is often restarted would lose
        strokes.restarts(run)
    return ends


def _end_marks(ends: Sequence[tuple[int, Cell]], rows: int) -> dict[int, Cell]:
    """Beside the row at which each curve ends, or the nearest one that is free."""
    taken: dict[int, Cell] = {}
    for wanted, cell in ends:
        free = [row for row in range(rows) if row not in taken]
        if free:
            taken[min(free, key=lambda row: abs(row - wanted))] = cell
    return taken


def _plain(text: str, colour: str) -> Row:
    return [(character, colour) for character in text]


def _fit(row: Row, width: int) -> Row:
    return [*row[:width], *[(" ", "")] * (width - len(row))]
