"""`ptx metrics`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Json, RunArgument, Runs, only_root
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.errors import UserError
from orchestrator.runs.observe import observe_one
from orchestrator.runs.registry import name_of, resolve

Csv = Annotated[bool, typer.Option("--csv", help="One row a report, with a header.")]
Prometheus = Annotated[
    str | None,
    typer.Option(
        "--prometheus",
        metavar="FILE",
        help="The newest numbers in Prometheus' text format, put at FILE by rename; - is stdout.",
    ),
]


def metrics(
    run: RunArgument,
    csv: Csv = False,
    prometheus: Prometheus = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Print what a run has reported: loss, throughput, memory, GPU use; for other tools.

    Reports that a restart undid are left out. For a node exporter's textfile collector call it
    from cron or a timer, with a FILE that ends in .prom in the collector's folder.

    \b
    Examples:
      ptx metrics @last
      ptx metrics quickstart-4f --csv > quickstart.csv
      ptx metrics quickstart-4f --json
      ptx metrics @last --prometheus /var/lib/node_exporter/textfile/ptx.prom
    """
    from orchestrator.metrics import table

    if sum((csv, prometheus is not None, as_json)) > 1:
        raise UserError(
            "--json, --csv and --prometheus are three forms of the same.", hint="Choose one."
        )
    layout = resolve(run, root=only_root(runs))
    if prometheus is not None:
        _prometheus(run, runs, prometheus)
        return
    records = table.reports(layout)
    if as_json:
        emit_json({"run_id": layout.run_id, "reports": records})
    elif csv:
        for line in table.csv_lines(records):
            sys.stdout.write(line)
    elif records:
        emit("\n".join(table.newest_lines(records[-1])))
        next_commands(f"ptx plot {name_of(layout)}", f"ptx metrics {name_of(layout)} --csv")
    if not records and not as_json:
        note("The run has reported nothing: metrics.jsonl is written by ptx's own training loop.")
        next_commands(f"ptx top {name_of(layout)}")


def _prometheus(run: str, runs: str | None, target: str) -> None:
    from orchestrator.metrics.board import Board
    from orchestrator.metrics.prometheus import exposition

    layout = resolve(run, root=only_root(runs))
    observed, troubles = observe_one(layout)
    for trouble in troubles:
        note(f"warning: {trouble}")
    text = exposition(Board(layout).look(observed))
    if target == "-":
        sys.stdout.write(text)
        return
    from orchestrator.runs.files import replace

    path = Path(target).absolute()
    try:
        replace(path, text.encode(), 0o644)  # the exporter runs as somebody else
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Give a file in a folder that is there and yours to write.",
        ) from error
