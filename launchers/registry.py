"""Launchers by name. One row each; packages add theirs through entry points `ptx.launchers`."""

from __future__ import annotations

from importlib import import_module

from launchers.facts import Launcher

_BUILT_IN = {
    "torchrun": ("launchers.torchrun", "Torchrun"),
    "accelerate": ("launchers.accelerate", "Accelerate"),
    "deepspeed": ("launchers.deepspeed", "Deepspeed"),
}
_GROUP = "ptx.launchers"


class UnknownLauncher(LookupError):
    """No launcher of this name; `known` are the names that there are."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no launcher is called {name!r}; there are {', '.join(known)}")
        self.name = name
        self.known = known


def get(name: str) -> Launcher:
    """Raise UnknownLauncher where neither ptx nor an installed package has it."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        launcher: Launcher = getattr(import_module(module), attribute)()
        return launcher
    from importlib.metadata import entry_points  # slow: reads every installed distribution

    for entry in entry_points(group=_GROUP, name=name):
        added: Launcher = entry.load()()
        return added
    raise UnknownLauncher(name, names())


def names() -> tuple[str, ...]:
    """Built-in ones first."""
    from importlib.metadata import entry_points

    added = {entry.name for entry in entry_points(group=_GROUP)} - _BUILT_IN.keys()
    return (*_BUILT_IN, *sorted(added))
