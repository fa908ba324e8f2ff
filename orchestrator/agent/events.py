"""This node's events file: one JSON object a line."""

from __future__ import annotations

import json
import time
from pathlib import Path

from orchestrator.agent.files import append_line, open_lines
from orchestrator.agent.stderr import tell


class Events:
    def __init__(self, path: Path, mode: int) -> None:
        self._descriptor = open_lines(path, mode)

    def append(self, kind: str, **fields: object) -> None:
        """Durable when this returns. A full disk is told on stderr; it must not end the run."""
        event = {"v": 1, "t": round(time.time(), 6), "type": kind, **fields}
        line = json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            append_line(self._descriptor, line)
        except OSError as error:
            tell(f"the event {kind} cannot be written: {error.strerror}")
