"""How the tests are shared out among pytest's workers."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

_ONE_LAUNCH = ("tests/training/", "tests/unit/test_training_loop.py")


class OneLaunchAModule(LoadScopeScheduling):
    """Modules that train all their cases in one launch go to one worker: on two they would train
    twice. Every other test goes to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0] if nodeid.startswith(_ONE_LAUNCH) else nodeid
