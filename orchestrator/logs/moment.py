"""`--since` and `--until`: a duration before now, or a time."""

from __future__ import annotations

import re
from datetime import datetime

from orchestrator.errors import UserError
from orchestrator.logs.line import stamp_of

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(text: str, now: float, option: str) -> str:
    """The stamp that is meant; `now` in epoch seconds.

    A time without a zone is this machine's local time. Raises UserError.
    """
    duration = _DURATION.fullmatch(text.strip())
    if duration:
        return stamp_of(max(0.0, now - float(duration[1]) * _SECONDS[duration[2]]))
    try:
        return stamp_of(datetime.fromisoformat(text.strip()).timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"{option} {text!r} is neither a duration nor a time.",
            hint=f"Write it as {option} 10m (s, m, h, d) or {option} 2026-11-21T14:30:00.",
        ) from error
