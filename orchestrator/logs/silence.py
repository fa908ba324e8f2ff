"""Where to look while, or because, no rank has printed anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.logs.discovery import attempts, node_folders, node_number
from orchestrator.logs.screen import plain
from orchestrator.runs.observe import Observed
from orchestrator.runs.reading import open_file
from orchestrator.runs.words import is_launch_reason

LINES = 20
_TAIL = 64 * 1024


@dataclass(frozen=True)
class Other:
    """Output that is not a rank's."""

    path: Path
    lines: tuple[str, ...]
    """The last ones, fit for a terminal."""


def other_logs(observed: Observed) -> list[Other]:
    """Of launcher and scheduler, those with anything in them; the most telling first.

    Of many nodes one is shown: the first whose launch failed, else the first.
    """
    layout = observed.layout
    paths = [*_launcher_logs(observed), layout.scheduler_log]
    found = [Other(path, lines) for path in paths if (lines := last_lines(path))]
    return found[:1] + [other for other in found[1:] if other.path == layout.scheduler_log]


def last_lines(path: Path, count: int = LINES) -> tuple[str, ...]:
    """The last lines of a text file, () where there is none."""
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            data = file.read(_TAIL)
    except OSError:
        return ()
    lines = data.decode("utf-8", "surrogateescape").rstrip("\n").split("\n")
    return tuple(plain(line) for line in lines[-count:]) if data.strip() else ()


def _launcher_logs(observed: Observed) -> list[Path]:
    newest = max(attempts(observed.layout), default=None)
    if newest is None or (observed.state.attempt is None and observed.state.attempts):
        return []  # resumed, and the new submission has not begun an attempt
    failed = {node.node for node in observed.state.nodes if is_launch_reason(node.reason)}
    folders = sorted(
        node_folders(observed.layout.attempt(newest)),
        key=lambda folder: (node_number(folder) not in failed, node_number(folder)),
    )
    return [folder / "launcher.log" for folder in folders]
