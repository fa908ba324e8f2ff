"""`ptx logs --raw`: the bytes of one rank."""

from __future__ import annotations

import sys
import time

from orchestrator.cli.output import emit_bytes
from orchestrator.errors import NotFound, UserError
from orchestrator.logs.raw import RawLog
from orchestrator.logs.select import Selection, select
from orchestrator.logs.vanished import sentence, vanished
from orchestrator.runs.layout import RunLayout

_PAUSE = 0.2
"""Seconds between two looks at a file that grows."""


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
    raw = RawLog(logs[0].path, logs[0].rank)
    code = _follow(layout, raw) if follow else _show(raw)
    if gone := vanished(logs):
        raise NotFound(sentence(gone), hint="What could be read of it is shown.")
    return code


def _show(raw: RawLog) -> int:
    for data in raw.read():
        emit_bytes(data)
    emit_bytes(raw.finish())
    return 0


def _follow(layout: RunLayout, raw: RawLog) -> int:
    from orchestrator.logs.watch import Watch
    from orchestrator.runs.state import State

    watch = Watch(layout)
    while True:
        end = watch.end()  # asked first: what was written until then is read
        for data in raw.read():
            emit_bytes(data)
        if end is not None:
            emit_bytes(raw.finish())
            return 0 if end.state.state is State.COMPLETED else 1
        time.sleep(_PAUSE)
