"""Schedulers by name. A new one is one row here, or an entry point `ptx.schedulers`."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import cast

from orchestrator.errors import UserError
from orchestrator.schedulers.base import Scheduler

ENTRY_POINTS = "ptx.schedulers"
_BUILT_IN = {
    "local": "orchestrator.schedulers.local:Local",
    "slurm": "orchestrator.schedulers.slurm:Slurm",
}


def names() -> list[str]:
    """All that can stand in a spec, the built-in ones first."""
    return [*_BUILT_IN, *sorted(_third_party().keys() - _BUILT_IN.keys())]


def get(name: str) -> Scheduler:
    """Raises UserError for an unknown name, or for an entry point that cannot be loaded."""
    place = _BUILT_IN.get(name) or _third_party().get(name)
    if place is None:
        known = names()
        close = get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"there is no scheduler {name!r}", hint=f"{meant}known are {', '.join(known)}"
        )
    return _load(name, place)


def _load(name: str, place: str) -> Scheduler:
    module, _, attribute = place.partition(":")
    try:
        scheduler = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in _BUILT_IN:
            raise
        raise UserError(
            f"the scheduler {name!r} ({place}) cannot be loaded: {error}",
            hint="repair or uninstall the package that adds it",
        ) from error
    return cast(Scheduler, scheduler())


def _third_party() -> dict[str, str]:
    """Reading the metadata of every installed package is slow: only for a name not built in."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
