"""Runs as one page that needs nothing else. Pure but for the templates it reads.

Whatever a run is called, it stays text: the data is JSON without `<`, `>` and `&`, put into the
document as text nodes; the page's policy lets nothing load and no script run but the page's own,
known by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from string import Template
from typing import Any

from orchestrator.plot.fields import compact
from orchestrator.plot.panels import drawable
from orchestrator.plot.picture import Drawn
from orchestrator.plot.scale import Axis
from orchestrator.resources import template
from orchestrator.runs.words import printable

_SCRIPT = ("base", "numbers", "scales", "curves", "panel", "pointer", "page")
"""Files of one script, in this order."""
_NAMED = 4
"""Runs that the title names; more are counted."""


def html_page(
    runs: Sequence[Drawn],
    now: float,
    *,
    axis: Axis = "step",
    log: bool = False,
    only: Sequence[str] = (),
) -> str:
    """`now` in epoch seconds: the page says when it was drawn. It opens along `axis`, with what
    can be on a log scale if `log`; both can be changed there. `only` these quantities, where it
    names any."""
    style = template("plot/page.css")
    script = "".join(template(f"plot/{part}.js") for part in _SCRIPT)
    panels = drawable((run.keys for run in runs), only)
    data = {
        "title": title(runs),
        "subtitle": _subtitle(runs, now),
        "notes": _notes(runs),
        "axis": axis,
        "log": log,
        "panels": [asdict(panel) for panel in panels],
        "runs": [compact(run) for run in runs],
    }
    return Template(template("plot/page.html")).substitute(
        policy=_policy(style, script),
        title=escape(f"{data['title']} - ptx plot"),
        style=style,
        script=script,
        data=_embedded(data),
    )


def title(runs: Sequence[Drawn]) -> str:
    names = [printable(run.run_id) for run in runs]
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _subtitle(runs: Sequence[Drawn], now: float) -> str:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if len(runs) > 1:
        return f"{len(runs)} runs compared, drawn {when}"
    return f"{runs[0].state}, drawn {when}"


def _notes(runs: Sequence[Drawn]) -> list[str]:
    notes = [
        "Shaded: the lowest and highest of what a point stands for.",
        "Drag to zoom, double-click for all of it; arrow keys move along a picture.",
    ]
    if any(len(run.starts) > 1 for run in runs):
        notes.append("Dotted: a new attempt; steps that it did again are shown once.")
    if any(run.nodes > run.nodes_read for run in runs):
        share = max(runs, key=lambda run: run.nodes - run.nodes_read)
        notes.append(f"GPU and CPU use: of {share.nodes_read} of {share.nodes} nodes.")
    return notes


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded(data: dict[str, Any]) -> str:
    """JSON that no parser of HTML mistakes for anything else."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
