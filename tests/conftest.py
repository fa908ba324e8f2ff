"""Options, isolation from the person's own files, and what is skipped."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.sharing import OneLaunchAModule, scope_of, turn_of
from support.small_disk import can_mount

NEEDS_SLURM = "needs a real SLURM: run pytest with --slurm (as root on Debian)"

# How long an example takes says how busy the machine is.
settings.register_profile("ptx", deadline=None)
settings.load_profile("ptx")

pytest.register_assert_rewrite("support.main_job", "support.ptx")

_skipped: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slurm",
        action="store_true",
        help="as root on Debian: install and start a real SLURM and run the tests that need "
        "it; then a skipped test is a failure",
    )
    parser.addoption("--fast", action="store_true", help="leave out the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    """No test may see or touch the runs, settings or registry of the person who runs it."""
    # Whoever starts pytest in the background has it, and all it starts, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="ptx-tests-"))
    config.stash[_HOME] = home
    os.environ["XDG_STATE_HOME"] = str(home / "state")
    os.environ["XDG_CONFIG_HOME"] = str(home / "config")
    os.environ["PTX_RUNS"] = str(home / "runs")
    # Compiled once by DeepSpeed on first use (40 s): shared by all tests of a session.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(home / "torch-extensions"))
    for name in ("NO_COLOR", "FORCE_COLOR", "CUDA_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    if config.getoption("--slurm"):
        os.environ["PTX_TEST_SLURM"] = "1"


_HOME = pytest.StashKey[Path]()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_HOME], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return OneLaunchAModule(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [
        *(["slow"] if config.getoption("--fast") else []),
        *([] if os.environ.get("PTX_SOAK") else ["soak"]),
        *([] if can_mount() else ["mount"]),
    ]
    away = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if away:
        config.hook.pytest_deselected(items=away)
        items[:] = [item for item in items if item not in set(away)]
    items.sort(key=lambda item: turn_of(scope_of(item.nodeid)))
    if not config.getoption("--slurm"):
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason=NEEDS_SLURM))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --slurm everything can run, so a skip hides something."""
    if session.config.getoption("--slurm") and _skipped and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not can_mount():
        terminalreporter.write_line("left out: tests that mount a disk, which is not allowed here")
    if terminalreporter.config.getoption("--slurm") and _skipped:
        terminalreporter.write_line(f"with --slurm a skip is a failure: {', '.join(_skipped)}")


@pytest.fixture
def checkout() -> Iterator[Path]:
    yield Path(__file__).resolve().parent.parent
