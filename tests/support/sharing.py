"""How the tests are shared out among pytest's workers, and which of them begin."""

from __future__ import annotations

import re
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

_ONE_LAUNCH = (
    "tests/training/",
    "tests/diagnose/",
    "tests/unit/test_training_loop.py",
    "tests/cli/test_hostile_files.py",
    "tests/cli/test_plot_browser.py",
    "tests/slurm/test_slurm_why.py",
    "tests/slurm/test_cluster.py",
)
_CLUSTER = "tests/slurm"


def _asking_for(fixture: str) -> tuple[str, ...]:
    """Modules of tests that name this fixture of tests/slurm/conftest.py. By what they say: one
    that was forgotten in a list would start a second cluster at the ports of the first."""
    folder = Path(__file__).resolve().parents[1] / "slurm"
    word = re.compile(rf"\b{fixture}\b")
    files = sorted(folder.glob("test_*.py"))
    return tuple(f"{_CLUSTER}/{file.name}" for file in files if word.search(file.read_text()))


_DISTURBED, _BARE = _asking_for("on_disturbed"), _asking_for("bare")
# The longest first, so that no worker is alone at the end: those of one cluster are the longest
# of all and mostly wait, then whatever takes a minute or more by itself.
_FIRST = (
    _CLUSTER,
    "tests/training/test_zero.py",
    "tests/training/test_zero_checkpoint.py",
    "tests/training/test_any_to_any.py",
    "tests/diagnose/test_why_provoked.py",
    "tests/slurm/",
    "tests/diagnose/",
    "tests/training/",
    "tests/cli/test_hostile_files.py",
    "tests/faults/",
)


def scope_of(nodeid: str) -> str:
    """Tests of one scope run on one worker, one after the other.

    Modules that train all their cases in one launch go to one worker: on two they would train
    twice. So do those that disturb the one cluster of their own, or need one without accounting,
    and those of one cluster at the same ports.
    Every other test goes to whoever is free.
    """
    if nodeid.startswith(_DISTURBED):
        return _CLUSTER
    alone = nodeid.startswith(_BARE) or nodeid.startswith(_ONE_LAUNCH)
    return nodeid.split("::")[0] if alone else nodeid


def turn_of(scope: str) -> int:
    """Of a scope, among all: the lowest begin."""
    for turn, begin in enumerate(_FIRST):
        if scope == begin or (begin.endswith("/") and scope.startswith(begin)):
            return turn
    return len(_FIRST)


class OneLaunchAModule(LoadScopeScheduling):
    """xdist's own order would be by the number of tests."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False
        super().schedule()
