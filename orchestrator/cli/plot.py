"""`ptx plot`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.no_metrics import no_metrics
from orchestrator.cli.options import Json, Runs, only_root
from orchestrator.cli.output import coloured, emit, emit_json, next_commands, note
from orchestrator.cli.output_file import STDOUT, put
from orchestrator.cli.still_there import still_there
from orchestrator.errors import NotFound, UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import observe
from orchestrator.runs.records import RunRecord, read_record
from orchestrator.runs.registry import name_of, resolve

if TYPE_CHECKING:
    from orchestrator.plot.picture import Drawn
    from orchestrator.plot.scale import Axis

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Run ids, prefixes of them, @last, @last~1, or run folders' paths."
    ),
]
Html = Annotated[
    str | None,
    typer.Option(
        "--html", metavar="FILE", help="Write one page to open or send instead; - is stdout."
    ),
]
Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", "-m", metavar="NAME", help="Only this: loss, lr, gpu_util, ..."),
]
Along = Annotated[
    str, typer.Option("--x", metavar="AXIS", help="What the curves run along: step or time.")
]
Log = Annotated[bool, typer.Option("--log", help="Losses, norms and rates on a log scale.")]


def plot(
    run: Names,
    html: Html = None,
    metric: Metric = None,
    x: Along = "step",
    log: Log = False,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Draw loss, throughput, memory and GPU use of runs: here, or as one page.

    The page is a single file that asks no server for anything. Steps that a restart undid are
    left out; restarts are marked, and values that are not finite. Where there is nothing to draw
    the exit code is 3.

    \b
    Examples:
      ptx plot @last
      ptx plot quickstart-4f quickstart-7k --log --metric loss
      ptx plot @last @last~1 --html compared.html
    """
    from orchestrator.plot.html import html_page
    from orchestrator.plot.picture import MOST_RUNS, draw

    _check(x, metric or [])
    _check_target(html, as_json=as_json)
    layouts = [resolve(name, root=only_root(runs)) for name in dict.fromkeys(run)]
    if len(layouts) > MOST_RUNS:
        raise UserError(
            f"{len(layouts)} runs are too many for one picture.",
            hint=f"Up to {MOST_RUNS} can still be told apart.",
        )
    with still_there(layouts):
        look = observe([(_record(layout), layout) for layout in dict.fromkeys(layouts)])
        drawn = draw(look.runs)
        _check_drawn(drawn, metric or [], layouts)
    for trouble in [*look.troubles, *(words for one in drawn for words in one.troubles)]:
        note(f"warning: {trouble}")
    if html is None and not as_json:
        _check_axis(drawn, x, metric or [], layouts)
    if html is not None:
        axis = _axis("time" if _stepless(drawn, metric or []) else x)
        page = html_page(drawn, time.time(), axis=axis, log=log, only=metric or [])
        put(html, page.encode())
    if as_json:
        emit_json(_fields(drawn, metric or [], html))
    elif html is not None:
        if html != STDOUT:
            emit(html)
        note("Open it in a browser, or send it: it needs nothing else.")
    else:
        _print(drawn, x, metric or [], log=log)
        names = " ".join(name_of(layout) for layout in layouts)
        next_commands(f"ptx plot {names} --html plot.html")


def _record(layout: RunLayout) -> RunRecord:
    record = read_record(layout)
    if record is None:
        raise UserError(
            f"{layout.record} cannot be read by this version of ptx.",
            hint="It may be damaged, or written by a newer ptx.",
        )
    return record


def _check(axis: str, metrics: Sequence[str]) -> None:
    from orchestrator.plot.panels import NAMES

    if axis not in ("step", "time"):
        raise UserError(f"--x {axis!r} is no axis.", hint="Write --x step or --x time.")
    unknown = [name for name in metrics if name not in NAMES]
    if unknown:
        raise UserError(f"--metric {unknown[0]!r} is unknown.", hint=f"Known: {', '.join(NAMES)}.")


def _check_target(html: str | None, *, as_json: bool) -> None:
    if html != STDOUT:
        return
    if as_json:
        raise UserError("--html - and --json would both write to stdout.", hint="Name a FILE.")
    if sys.stdout.isatty():
        raise UserError(
            "--html - writes the page to stdout, and that is a terminal.",
            hint="Name a FILE, or send it on with > or |.",
        )


def _check_drawn(
    drawn: Sequence[Drawn], metrics: Sequence[str], layouts: Sequence[RunLayout]
) -> None:
    """Nothing to draw is no empty picture."""
    from orchestrator.plot.panels import NAMES, drawable

    there = sorted({key for run in drawn for key in run.keys})
    if not there:
        raise no_metrics(layouts, measured=False)
    known = [panel.key for panel in drawable((run.keys for run in drawn), NAMES)]
    if not known:
        raise NotFound(
            f"Nothing that can be drawn is in these runs, only {', '.join(there)}.",
            hint=f"`ptx metrics {name_of(layouts[0])}` prints it.",
        )
    missing = [name for name in dict.fromkeys(metrics) if name not in known]
    if metrics and all(name in missing for name in metrics):
        raise NotFound(
            f"There is no {missing[0]} in these runs.", hint=f"Known: {', '.join(known)}."
        )
    for name in missing:
        note(f"There is no {name} in these runs.")


def _check_axis(
    drawn: Sequence[Drawn], axis: str, metrics: Sequence[str], layouts: Sequence[RunLayout]
) -> None:
    """Of a run that reports no steps there may be samples, which lie along the time alone; those of
    one that does may all lie before its first report."""
    if axis != "step":
        return
    if _stepless(drawn):
        raise no_metrics(layouts)
    there = {key for run in drawn for key in run.keys}
    missed = [name for name in dict.fromkeys(metrics) if name in there and _stepless(drawn, [name])]
    if not missed:
        return
    names = " ".join(name_of(layout) for layout in layouts)
    hint = f"`ptx plot {names} -m {missed[0]} --x time` draws it."
    if _stepless(drawn, metrics):
        raise NotFound(f"No {missed[0]} was measured at a step that was reported.", hint=hint)
    for name in missed:
        note(f"No {name} was measured at a step that was reported; --x time draws it.")


def _stepless(drawn: Sequence[Drawn], metrics: Sequence[str] = ()) -> bool:
    """Whether nothing of these, or of all, has a place along the steps."""
    from orchestrator.plot.panels import drawable

    panels = drawable((run.keys for run in drawn), metrics)
    shown = {key for panel in panels for key in (panel.key, panel.beside)}
    curves = [curve for run in drawn for key, curve in run.curves.items() if key in shown]
    return all(step is None for curve in curves for step in curve.steps)


def _axis(typed: str) -> Axis:
    return "time" if typed == "time" else "step"


def _print(drawn: Sequence[Drawn], axis: str, metrics: Sequence[str], *, log: bool) -> None:
    from orchestrator.plot.terminal import Look, page

    look = Look(shutil.get_terminal_size((80, 24)).columns, coloured(sys.stdout), _unicode())
    emit(page(drawn, look, axis=_axis(axis), log=log, only=metrics))


def _unicode() -> bool:
    """Python takes LC_ALL=C for UTF-8; who has set it may have a terminal that is not."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return encoding == "utf8" and os.environ.get("LC_ALL") not in ("C", "POSIX")


def _fields(drawn: Sequence[Drawn], metrics: Sequence[str], html: str | None) -> dict[str, Any]:
    from orchestrator.plot.fields import run_fields

    return {
        "runs": [run_fields(run, metrics) for run in drawn],
        "html": html,
    }
