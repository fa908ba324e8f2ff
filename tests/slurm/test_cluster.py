"""The script that starts the test SLURM, as people use it by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cluster_processes as processes
import pytest
from cluster import HOSTS, Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "cluster.py"


@pytest.fixture
def where():
    with tempfile.TemporaryDirectory(prefix="ptx-slurm-", dir="/tmp") as folder:
        arguments = ["--dir", f"{folder}/c", "--port", "29770"]
        yield arguments
        subprocess.run([sys.executable, SCRIPT, "stop", *arguments], check=True)


def script(command, where):
    """Its output through pipes: a daemon that kept them open would hang this test."""
    argv = [sys.executable, SCRIPT, *command.split(), *where]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


def test_stop_leaves_no_process_and_no_file_even_of_a_job_on_a_dead_node(where):
    started = script("start", where)
    assert started.returncode == 0, started.stderr
    root = Path(where[1])
    assert started.stdout == f"export SLURM_CONF={root}/etc/slurm.conf\n"
    cluster = Cluster.at(root)
    daemons = [processes.running_pid(record) for record in (root / "pids").iterdir()]
    assert len(daemons) == 8
    assert all(daemons)
    assert str(root) in HOSTS.read_text()
    marker = f"7{int.from_bytes(os.urandom(3)):08}"
    body = f"setsid sleep {marker} & sleep {marker}"
    sent = cluster.run("sbatch", "--nodelist=node2", "--output=/dev/null", f"--wrap={body}")
    assert sent.returncode == 0, sent.stderr

    def sleepers():
        wanted = f"sleep\0{marker}\0".encode()
        return [pid for pid in processes.all_pids() if processes.command(pid) == wanted]

    assert processes.wait_until(lambda: len(sleepers()) == 2, 30)
    assert script("kill-node node2", where).returncode == 0
    assert len(sleepers()) == 2
    assert script("stop", where).returncode == 0
    assert sleepers() == []
    assert [pid for pid in daemons if processes.start_time(pid)] == []
    assert not root.exists()
    assert str(root) not in HOSTS.read_text()
    assert script("status", where).returncode == 1


def test_start_twice_is_one_cluster_and_brings_a_dead_node_back(where):
    first = script("start", [*where, "--no-accounting"])
    assert first.returncode == 0, first.stderr
    cluster = Cluster.at(Path(where[1]))
    record = cluster.root / "pids" / "slurmctld"
    controller = processes.running_pid(record)
    cluster.kill_node("node1")
    again = script("start", [*where, "--no-accounting"])
    assert again.returncode == 0, again.stderr
    assert processes.running_pid(record) == controller
    assert processes.running_pid(cluster.root / "pids" / "node1")
    refused = script("start", where)
    assert refused.returncode == 1
    assert "stop it first" in refused.stderr
