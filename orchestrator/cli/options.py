"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import UserError
from orchestrator.runs.root import absolute

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run id, a prefix of one, @last, @last~1, or the path of a run folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Runs = Annotated[
    str | None,
    typer.Option(
        "--runs",
        metavar="DIR",
        help="Folder of the run folders. Default: $PTX_RUNS, the config file's, ./ptx-runs.",
    ),
]


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str, option: str) -> float:
    """`90`, `90s`, `15m`, `2h`, `1d` in seconds. Raises UserError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UserError(f"{option} {text!r} is not a time.", hint="Write 90, 90s, 15m, 2h or 1d.")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def only_root(runs: str | None) -> Path | None:
    """Where to look for runs: --runs limits the search to its folder."""
    return absolute(runs, "--runs") if runs else None
