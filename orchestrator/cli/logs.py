"""`ptx logs`."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from orchestrator.cli.options import RunArgument, Runs, only_root
from orchestrator.cli.output import coloured, next_commands, note
from orchestrator.errors import UserError
from orchestrator.logs.line import TEXT, Entry
from orchestrator.logs.merge import merge
from orchestrator.logs.reader import LogReader
from orchestrator.logs.screen import plain
from orchestrator.logs.seek import offset_of_last, offset_since
from orchestrator.logs.select import RankLog, Selection, select
from orchestrator.logs.since import since as stamp_since
from orchestrator.logs.text import JsonLines, TextLines
from orchestrator.runs.layout import RunLayout

CLOSED_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended."""


def logs(
    run: RunArgument,
    rank: Annotated[
        str | None, typer.Option("--rank", metavar="R,...", help="Ranks, as 3 or 0,8-15.")
    ] = None,
    node: Annotated[
        str | None, typer.Option("--node", metavar="N,...", help="Nodes, as 0 or node-0001 or 0-3.")
    ] = None,
    attempt: Annotated[
        str | None,
        typer.Option("--attempt", metavar="A", help="Attempt, or `all`. Default: the newest."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="From 10m (s, m, h, d) ago, or an ISO time."),
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option("--grep", metavar="RE", help="Only lines in which this is found (Python re)."),
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="N", help="Only the last N lines.", min=0)
    ] = None,
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

    Lines of stderr bear [rank node err]. A progress bar shows as its last state. Colours of the
    ranks pass on a terminal; sequences that move the cursor never do (the rank's log has them).

    \b
    Examples:
      ptx logs @last --follow
      ptx logs quickstart-4f --rank 0,8-15 --since 10m
      ptx logs quickstart-4f --grep 'loss|Error' --tail 50
      ptx logs quickstart-4f --json | jq -r 'select(.stream == "stderr").text'
    """
    wanted = _Wanted(
        Selection.of(rank, node, attempt),
        None if since is None else stamp_since(since, time.time()),
        None if grep is None else _pattern(grep),
        tail,
        as_json,
    )
    from orchestrator.runs.registry import resolve

    layout = resolve(run, root=only_root(runs))
    try:
        return _follow(layout, wanted) if follow else _show(layout, wanted)
    except BrokenPipeError:  # as of `| head`; typer would make it a failure
        return CLOSED_PIPE


_NOTHING_PRINTED = "nothing was printed"
_NOTHING_WANTED = "no line matches"


@dataclass(frozen=True)
class _Wanted:
    selection: Selection
    since: str | None
    grep: re.Pattern[str] | None
    tail: int | None
    as_json: bool

    @property
    def is_part(self) -> bool:
        return self.grep is not None or self.since is not None

    def start(self, log: RankLog) -> int:
        """Offset before which this log holds nothing that is wanted."""
        offset = 0 if self.since is None else offset_since(log.path, self.since)
        if self.tail is not None and self.grep is None:
            offset = max(offset, offset_of_last(log.path, self.tail))
        return offset

    def filter(self, entries: list[Entry]) -> list[Entry]:
        if self.since is not None and entries and entries[0][0] < self.since:
            since = self.since
            entries = [entry for entry in entries if entry[0] >= since]
        if self.grep is not None:
            found = self.grep.search
            entries = [entry for entry in entries if found(plain(entry[2][TEXT:]))]
        return entries

    def cut(self, batches: Iterable[list[Entry]]) -> Iterator[list[Entry]]:
        """What of the lines that are there already is wanted."""
        filtered = (self.filter(entries) for entries in batches)
        if self.tail is None:
            yield from filtered
            return
        last: deque[Entry] = deque(maxlen=self.tail)
        for entries in filtered:
            last.extend(entries)
        yield list(last)

    def lines(self, logs: list[RankLog]) -> TextLines | JsonLines:
        if self.as_json:
            return JsonLines(logs)
        return TextLines(logs, colour=coloured(sys.stdout), attempts=self.selection.all_attempts)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        column = getattr(error, "colno", None)
        where = f" at character {column}" if column else ""
        raise UserError(
            f"--grep {text!r} is not a regular expression: "
            f"{getattr(error, 'msg', 'it is too large')}{where}.",
            hint="It is searched as Python's re does; put \\ before . * + ? ( ) [ ] { } | ^ $ \\ "
            "to mean the character itself.",
        ) from error


def _show(layout: RunLayout, wanted: _Wanted) -> int:
    logs = select(layout, wanted.selection)
    if not logs:
        return _say_why_silent(layout)
    lines = wanted.lines(logs)
    readers = [LogReader(log.path, source, wanted.start(log)) for source, log in enumerate(logs)]
    nothing = True
    for entries in wanted.cut(merge(readers)):
        sys.stdout.write(lines.render(entries))
        nothing = nothing and not entries
    if nothing and wanted.tail != 0:
        note(_NOTHING_WANTED if wanted.is_part else _NOTHING_PRINTED)
    return 0


def _follow(layout: RunLayout, wanted: _Wanted) -> int:
    from orchestrator.logs.follow import Follower
    from orchestrator.logs.watch import Watch
    from orchestrator.runs.records import read_plan

    world_size = read_plan(layout).get("world_size")  # as of the newest submission
    select(layout, wanted.selection, world_size if isinstance(world_size, int) else 0)
    watch = Watch(layout)
    follower = Follower(layout, wanted.selection, start=wanted.start)
    lines = wanted.lines(follower.logs)
    for entries in wanted.cut(follower.history()):
        sys.stdout.write(lines.render(entries))
    told = ""
    for entries in follower.follow(watch.end):
        sys.stdout.write(lines.render(wanted.filter(entries)))
        sys.stdout.flush()
        if not follower.logs and watch.latest is not None and watch.latest.state.reason != told:
            told = watch.latest.state.reason
            note(f"{layout.run_id} {watch.latest.state.state.value}: {told}")
    return 0 if follower.logs else _say_why_silent(layout)


def _say_why_silent(layout: RunLayout) -> int:
    """No rank has a log: what the run is doing, and what else there is to read."""
    from orchestrator.logs.silence import other_logs
    from orchestrator.runs.observe import observe_one
    from orchestrator.runs.registry import name_of

    observed, troubles = observe_one(layout)
    state = observed.state
    yet = "" if state.state.ended else " yet"
    note(f"No rank of {layout.run_id} has a log{yet}. It is {state.words}")
    for trouble in troubles:
        note(trouble)
    for number, other in enumerate(other_logs(observed)):
        if number == 0 and state.state.ended:
            note(f"Last lines of {other.path}:")
            note("\n".join(f"  | {line}" for line in other.lines))
        else:
            note(f"See {other.path}")
    next_commands(f"ptx status {name_of(layout)}")
    return 0
