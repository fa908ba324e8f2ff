"""`ptx metrics`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli.no_metrics import no_metrics
from orchestrator.cli.options import Json, RunArgument, Runs, only_root
from orchestrator.cli.output import emit, emit_json_list, next_commands, note
from orchestrator.cli.output_file import put
from orchestrator.cli.still_there import still_there
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
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

    Without an option the newest report. Reports that a restart undid are left out. A run that has
    reported nothing is an error (exit 3), but for --prometheus, which tells its state all the same.
    For a node exporter's textfile collector call it from cron or a timer, with a FILE that ends in
    .prom in the collector's folder.

    \b
    Examples:
      ptx metrics @last
      ptx metrics quickstart-4f --csv > quickstart.csv
      ptx metrics quickstart-4f --json
      ptx metrics @last --prometheus /var/lib/node_exporter/textfile/ptx.prom
    """
    if sum((csv, prometheus is not None, as_json)) > 1:
        raise UserError(
            "--json, --csv and --prometheus are three forms of the same.", hint="Choose one."
        )
    layout = resolve(run, root=only_root(runs))
    if prometheus is not None:
        put(prometheus, _exposition(layout).encode(), 0o644)  # the exporter runs as somebody else
    elif csv or as_json:
        _print_all(layout, as_json=as_json)
    else:
        _print_newest(layout)


def _print_newest(layout: RunLayout) -> None:
    from orchestrator.metrics.table import newest, newest_lines

    with still_there([layout]):
        record = newest(layout)
        if record is None:
            raise no_metrics([layout])
    emit("\n".join(newest_lines(record)))
    next_commands(f"ptx plot {name_of(layout)}", f"ptx metrics {name_of(layout)} --csv")


def _print_all(layout: RunLayout, *, as_json: bool) -> None:
    from orchestrator.metrics.table import Table

    with still_there([layout]):
        table = Table(layout)
        if not table:
            raise no_metrics([layout])
    with still_there([layout]):
        if as_json:
            emit_json_list({"run_id": layout.run_id}, "reports", table)
            return
        for line in table.csv_lines():
            sys.stdout.write(line)


def _exposition(layout: RunLayout) -> str:
    from orchestrator.metrics.board import Board
    from orchestrator.metrics.prometheus import exposition

    with still_there([layout]):
        observed, troubles = observe_one(layout)
        text = exposition(Board(layout).look(observed))
    for trouble in troubles:
        note(f"warning: {trouble}")
    return text
