"""Where a person's own rules lie. Apart from what reads them: a table of runs asks at each look
whether they are as they were."""

from __future__ import annotations

import os
from pathlib import Path


def own_files() -> list[Path]:
    """`$XDG_CONFIG_HOME/ptx/rules.toml` and `rules/*.toml` beside it."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    try:
        folder = Path(home).expanduser() / "ptx"
    except RuntimeError:  # whoever has no home here has no rules in it
        return []
    single = folder / "rules.toml"
    return [*([single] if single.exists() else []), *sorted((folder / "rules").glob("*.toml"))]
