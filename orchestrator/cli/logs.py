"""`ptx logs`."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from orchestrator.cli.options import RunArgument, Runs, only_root
from orchestrator.cli.still_there import still_there
from orchestrator.errors import UserError
from orchestrator.logs.level import Level
from orchestrator.logs.moment import moment
from orchestrator.logs.select import Selection
from orchestrator.logs.wanted import Wanted, pattern

INTERRUPTED, CLOSED_PIPE = 130, 141
"""What a shell shows for a program that Ctrl-C, or a closed pipe, ended."""


def logs(
    run: RunArgument,
    rank: Annotated[
        str | None, typer.Option("--rank", metavar="R,...", help="Ranks, as 3 or 0,8-15.")
    ] = None,
    node: Annotated[
        str | None,
        typer.Option("--node", metavar="N,...", help="Nodes, as 0 or 0-3 or node-0001 or a host."),
    ] = None,
    attempt: Annotated[
        str | None,
        typer.Option("--attempt", metavar="A", help="Attempt, or `all`. Default: the newest."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on until the run has ended; exit with 0 if it completed."
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="From 10m (s, m, h, d) ago, 14:30, or an ISO time."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Up to a time, as --since.")
    ] = None,
    level: Annotated[
        str | None,
        typer.Option("--level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR, and worse."),
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option("--grep", metavar="RE", help="Only lines in which this is found (Python re)."),
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="N", help="Only the last N lines.", min=0)
    ] = None,
    first_error: Annotated[
        bool, typer.Option("--first-error", help="Only the first error or traceback of all ranks.")
    ] = False,
    dedupe: Annotated[
        bool,
        typer.Option("--dedupe", help="Once what many ranks printed, numbers notwithstanding."),
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The bytes of one rank as it wrote them.")
    ] = False,
    runs: Runs = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON object a line: v, time, attempt, node, rank, stream, text, complete.",
        ),
    ] = False,
) -> int:
    """Show what the ranks print, merged in time order, each line with [rank node].

    Lines of stderr bear [rank node err], those that many ranks printed [0-62 \u00d763 ranks]
    under --dedupe. A progress bar shows as its last state. The clock of a node that is off by
    more than two seconds is corrected. Colours of the ranks pass on a terminal; sequences that
    move the cursor never do (--raw has every byte).

    \b
    Examples:
      ptx logs @last --follow
      ptx logs quickstart-4f --rank 0,8-15 --since 10m
      ptx logs quickstart-4f --first-error
      ptx logs quickstart-4f --level WARNING --dedupe
      ptx logs quickstart-4f --grep 'loss|Error' --tail 50
      ptx logs quickstart-4f --rank 0 --raw > rank-0.txt
      ptx logs quickstart-4f --json | jq -r 'select(.stream == "stderr").text'
    """
    now = time.time()
    wanted = Wanted(
        Selection.of(rank, node, attempt),
        since=None if since is None else moment(since, now, "--since"),
        until=None if until is None else moment(until, now, "--until"),
        grep=None if grep is None else pattern(grep),
        level=None if level is None else Level.of(level),
        tail=tail,
        dedupe=dedupe,
    )
    given = {
        "--follow": follow, "--since": since, "--until": until, "--level": level, "--grep": grep,
        "--tail": tail is not None, "--first-error": first_error, "--dedupe": dedupe, "--raw": raw,
        "--json": as_json,
    }  # fmt: skip
    _refuse_pairs({name for name, value in given.items() if value})
    if wanted.since is not None and wanted.until is not None and wanted.until < wanted.since:
        raise UserError("--until lies before --since.", hint="Nothing was printed in between.")
    from orchestrator.runs.registry import resolve

    layout = resolve(run, root=only_root(runs))
    try:
        with still_there([layout]):
            if raw:
                from orchestrator.cli.logs_raw import show_raw

                return show_raw(layout, wanted.selection, follow=follow)
            if follow:
                from orchestrator.cli.logs_follow import follow_logs

                return follow_logs(layout, wanted, as_json=as_json, first=first_error)
            from orchestrator.cli.logs_show import show_logs

            return show_logs(layout, wanted, as_json=as_json, first=first_error)
    except BrokenPipeError:  # as of `| head`; typer would make it a failure
        return CLOSED_PIPE
    except KeyboardInterrupt:
        sys.stdout.flush()
        return INTERRUPTED


_EXCLUDE = {
    "--raw": {
        "--since", "--until", "--level", "--grep", "--tail", "--first-error", "--dedupe", "--json",
    },
    "--first-error": {"--level", "--grep", "--tail", "--dedupe"},
    "--until": {"--follow"},
}  # fmt: skip


def _refuse_pairs(given: set[str]) -> None:
    for option, others in _EXCLUDE.items():
        both = sorted(others & given) if option in given else []
        if both:
            raise UserError(
                f"{option} and {both[0]} exclude each other.", hint="Leave one of them out."
            )
