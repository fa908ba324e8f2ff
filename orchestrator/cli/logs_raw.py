"""`ptx logs --raw`: the bytes of one rank."""

from __future__ import annotations

import sys
import time

from orchestrator.cli.output import emit_bytes, note
from orchestrator.errors import NotFound, UserError
from orchestrator.logs.discovery import attempts, node_folders
from orchestrator.logs.raw import RawLog
from orchestrator.logs.select import RankLog, Selection, rank_logs, select
from orchestrator.logs.vanished import sentence, vanished
from orchestrator.runs.layout import RunLayout

_PAUSE = 0.2
"""Seconds between two looks at a file that grows."""
_PATROL = 2.0
"""Seconds between two looks for a next attempt: a listing of all its nodes' folders."""


def show_raw(layout: RunLayout, selection: Selection, *, follow: bool) -> int:
    """Raises UserError: for several ranks, whose bytes would run together, for a terminal, which
    would obey them, and for a log that went away, once all else was shown."""
    if sys.stdout.isatty():
        raise UserError(
            "--raw writes whatever the rank wrote, and a terminal would obey it.",
            hint="Write it to a file or a pipe: ptx logs RUN --rank 0 --raw | less",
        )
    logs = select(layout, selection)
    if len(logs) != 1:
        count = f"{len(logs)} logs are" if logs else "no log is"
        raise UserError(
            f"--raw shows one rank of one attempt, and {count} chosen.",
            hint="Name it: --rank 0, and --attempt 0 where there are several attempts.",
        )
    code = _follow(layout, selection, logs[0]) if follow else _show(logs[0])
    if gone := vanished(logs):
        raise NotFound(sentence(gone), hint="What could be read of it is shown.")
    return code


def _show(log: RankLog) -> int:
    raw = RawLog(log.path, log.rank)
    _emit(raw)
    emit_bytes(raw.finish())
    return 0


def _emit(raw: RawLog) -> None:
    """What there is by now; what is missing of it on stderr."""
    for data in raw.read():
        _tell(raw)
        emit_bytes(data)
    _tell(raw)


def _tell(raw: RawLog) -> None:
    for text in raw.missing():
        note(text)


def _follow(layout: RunLayout, selection: Selection, log: RankLog) -> int:
    """To the run's end, through its restarts: the rank may be on another node then."""
    from orchestrator.logs.watch import Watch
    from orchestrator.runs.state import State

    watch = Watch(layout)
    raw, looked = RawLog(log.path, log.rank), time.monotonic()
    while True:
        end = watch.end()  # asked first: what was written until then is read
        later = None
        if end is not None or time.monotonic() - looked >= _PATROL:
            later, looked = _later(layout, selection, log), time.monotonic()
        _emit(raw)
        if later is not None:
            emit_bytes(raw.finish())
            log, raw = later, RawLog(later.path, later.rank)
            continue
        if end is not None:
            emit_bytes(raw.finish())
            return 0 if end.state.state is State.COMPLETED else 1
        time.sleep(_PAUSE)


def _later(layout: RunLayout, selection: Selection, log: RankLog) -> RankLog | None:
    """The same rank in the next attempt in which it wrote; never where an attempt was named."""
    if selection.attempt is not None:
        return None
    for attempt in attempts(layout):
        if attempt > log.attempt:
            for node in node_folders(layout.attempt(attempt)):
                for one in rank_logs(attempt, node):
                    if one.rank == log.rank and selection.covers(one):
                        return one
    return None
