"""Where the packaged data lies: templates and jobs.

Found by path from this file, never by import or from the current folder: whoever runs ptx may
have a `templates/` or `jobs/` of their own there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def data_dir(kind: Literal["templates", "jobs"]) -> Path:
    """`orchestrator/_data/<kind>` of an installed wheel, else `<checkout>/<kind>`."""
    installed = _PACKAGE / "_data" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def template(name: str) -> str:
    return (data_dir("templates") / name).read_text(encoding="utf-8")
