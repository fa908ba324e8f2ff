"""`--since` and `--until`: a duration before now, or a time."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from orchestrator.errors import UserError
from orchestrator.logs.line import stamp_of

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", re.ASCII)
_CLOCK = re.compile(r"\d\d:")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(text: str, now: float, option: str) -> str:
    """The stamp that is meant; `now` in epoch seconds.

    A time without a zone is this machine's local time, one without a date the latest of the kind.
    Raises UserError.
    """
    text = text.strip()
    duration = _DURATION.fullmatch(text)
    if duration:
        return stamp_of(max(0.0, now - float(duration[1]) * _SECONDS[duration[2]]))
    try:
        return stamp_of(_clock(text, now) if _CLOCK.match(text) else _instant(text))
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"{option} {text!r} is neither a duration nor a time.",
            hint=f"Write it as {option} 10m (s, m, h, d), 14:30 or 2026-11-21T14:30:00.",
        ) from error


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _clock(text: str, now: float) -> float:
    today = datetime.combine(datetime.fromtimestamp(now), time.fromisoformat(text))
    then = today if today.timestamp() <= now else today - timedelta(days=1)
    return then.timestamp()
