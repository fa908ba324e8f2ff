"""The bundles of a run: `bundle` is the newest that a submission has put there, `bundle.000` the
one that submission 1 has taken the place of, and so on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.render.bundle import Bundle
from orchestrator.runs.create import modes_of, write_bundle
from orchestrator.runs.events import Event, read_events
from orchestrator.runs.files import make_folder, put_folder
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.submissions import standing

_OLD = re.compile(r"bundle\.(\d{3,})")


def current_bundle(layout: RunLayout, events: Sequence[Event] | None = None) -> Path:
    """The folder of the bundle that the run stands by; `events` are read where none are given.

    A submission that the scheduler never had may have put its bundle in the place of that one:
    what it would have changed, a step to go back to among it, says nothing of the run. Between two
    renames there is none called `bundle`, and a client that is killed there leaves it so.
    """
    found = standing(read_events(layout) if events is None else events)
    number = 0 if found is None else found.number
    replaced = {
        int(entry.name.partition(".")[2]): entry
        for entry in layout.root.iterdir()
        if _OLD.fullmatch(entry.name)
    }
    since = [other for other in replaced if other >= number]
    if since:
        return replaced[min(since)]
    if replaced and not layout.bundle.is_dir():
        return replaced[max(replaced)]
    return layout.bundle


def put_bundle(layout: RunLayout, bundle: Bundle, number: int) -> None:
    """Make `bundle` the run's newest; the one that is there becomes `bundle.NNN`, `number` being
    that of the submission before.

    What runs from the old one keeps the files that it has open, and finds the rest no more under
    their names: the run has ended. Raises OSError.
    """
    modes = modes_of(layout)
    new = layout.root / ".bundle.new"
    shutil.rmtree(new, ignore_errors=True)  # of a client that was killed
    make_folder(new, modes.folder)
    try:
        write_bundle(new, bundle, modes)
        put_folder(new, layout.bundle, aside=layout.root / f"bundle.{number:03d}")
    finally:
        shutil.rmtree(new, ignore_errors=True)
