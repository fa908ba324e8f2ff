"""The real SLURM of a test session: one that already runs, else one that is started and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cluster_processes as processes
import pytest
from cluster import Cluster
from restarting import Start, SteppingRun, stepping_spec
from support.ptx import Ptx

SCRIPT = Path(__file__).parent / "cluster.py"
FOLDER = Path(os.environ.get("PTX_SLURM_DIR", "/tmp/ptx-slurm"))


def _cluster_script(command: str, folder: Path = FOLDER, *flags: str) -> None:
    """In a process of its own, so that the daemons are nobody's children once it has ended."""
    done = subprocess.run([sys.executable, SCRIPT, command, "--dir", folder, *flags], check=False)
    assert done.returncode == 0, f"cluster.py {command} failed"


def _already_running() -> bool:
    return (FOLDER / "settings.json").exists() and Cluster.at(FOLDER).is_up()


@pytest.fixture(scope="session")
def _session_cluster() -> Iterator[Cluster]:
    """A cluster that a person started is left running; one that tests started ends with the
    last test process that uses it (pytest-xdist runs several)."""
    users = FOLDER / "users"
    if not _already_running():
        _cluster_script("install")
        _cluster_script("start")
        users.mkdir(exist_ok=True)
    me = users / str(os.getpid())
    if users.is_dir():
        me.write_text(f"{os.getpid()} {processes.start_time(os.getpid())}\n")
    yield Cluster.at(FOLDER)
    if users.is_dir():
        me.unlink(missing_ok=True)
        if not any(processes.running_pid(user) for user in users.iterdir()):
            _cluster_script("stop")


@pytest.fixture(autouse=True)
def _spoken_to(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests marked slurm find the cluster through SLURM_CONF, as a person would."""
    if request.node.get_closest_marker("slurm") is None:
        return
    if os.environ.get("PTX_TEST_SLURM") != "1":
        pytest.skip("needs --slurm: a real SLURM")
    cluster = request.getfixturevalue("_session_cluster")
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))


@contextmanager
def _private(port: int, *flags: str) -> Iterator[Cluster]:
    """Below /tmp, since a socket's path may be no longer than 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ptx-slurm-", dir="/tmp") as parent:
        folder = Path(parent) / "c"
        flags = ("--port", str(port), *flags)
        try:
            _cluster_script("start", folder, *flags)
            yield Cluster.at(folder)
        finally:
            _cluster_script("stop", folder, *flags)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[SteppingRun] = []

    def one(args: dict[str, Any] | None = None, **sections: Any) -> SteppingRun:
        ptx, spec = Ptx(tmp_path / "runs"), stepping_spec(tmp_path, args or {}, **sections)
        runs.append(SteppingRun(ptx, ptx.submit(spec)))
        return runs[-1]

    yield one
    for run in runs:
        run.end()


@pytest.fixture(scope="session")
def disturbed(_session_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of its own, for tests that preempt whole nodes or kill them."""
    with _private(29730) as cluster:
        yield cluster


@pytest.fixture
def on_disturbed(disturbed: Cluster, _spoken_to: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(disturbed.conf))
    # Its tests kill nodes, and say which ones a job gets: what the last one left there, or did not
    # leave, would send it elsewhere.
    if not disturbed.is_whole():
        _cluster_script("start", disturbed.root, "--port", str(disturbed.settings.port))
    assert disturbed.is_empty(within=90), disturbed.run("scontrol", "show", "node", "-o").stdout


@pytest.fixture(scope="module")
def bare(_session_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of its own without accounting."""
    with _private(29750, "--no-accounting") as cluster:
        yield cluster
