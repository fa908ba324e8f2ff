"""A spec where a run was meant: what to type instead."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import NotFound
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.reading import read_regular
from orchestrator.runs.records import RunRecord

_ENDINGS = (".yaml", ".yml")
_NAME = re.compile(r"""^name:[ \t]*(["']?)([\w.-]+)\1[ \t]*(?:#.*)?$""", re.MULTILINE)
_LONGEST = 1 << 16


def is_spec(text: str) -> bool:
    """By its name: ptx's own specs need not lie where they are named."""
    return text.lower().endswith(_ENDINGS) and "\0" not in text and not os.path.isdir(text)  # noqa: PTH112


def not_a_run(text: str, runs: Iterable[tuple[RunRecord, RunLayout]]) -> NotFound:
    """`text` is the name of a spec; `runs`: all there are, the newest first."""
    name = _name(text) or Path(text).stem
    path = str(Path(text).absolute())
    own = [record.run_id for record, _ in runs if record.name == name or record.spec_path == path]
    submit = f"`ptx submit {shlex.quote(text)}` starts"
    hint = f"{submit} one; there is no run of it yet."
    if own:
        which = "Its only run is" if len(own) == 1 else f"The newest of its {len(own)} runs is"
        hint = f"{which} {own[0]}; {submit} another."
    return NotFound(f"{text} is a spec, and a run is wanted here.", hint=hint)


def _name(text: str) -> str | None:
    """What the spec calls its runs, as far as one line of it says so."""
    try:
        data = read_regular(text, _LONGEST)[1]
    except OSError:
        return None
    found = _NAME.search(data.decode("utf-8", "replace"))
    return found[2] if found else None
