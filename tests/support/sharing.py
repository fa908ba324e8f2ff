"""How the tests are shared out among pytest's workers."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

_ONE_LAUNCH = (
    "tests/training/",
    "tests/diagnose/",
    "tests/unit/test_training_loop.py",
    "tests/cli/test_hostile_files.py",
    "tests/cli/test_plot_browser.py",
    "tests/slurm/test_slurm_why.py",
)
_ONE_CLUSTER = tuple(
    f"tests/slurm/test_{name}.py"
    for name in ("slurm_disturbed", "slurm_restarts", "never_lose_work")
)


class OneLaunchAModule(LoadScopeScheduling):
    """Modules that train all their cases in one launch go to one worker: on two they would train
    twice. So do those that disturb the one cluster of their own. Every other test goes to whoever
    is free."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_ONE_CLUSTER):
            return "tests/slurm"
        return nodeid.split("::")[0] if nodeid.startswith(_ONE_LAUNCH) else nodeid
