"""What happens to a run on the test SLURM: warnings, preemption, kills. Each says what it hit."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from support.ptx import eventually

if TYPE_CHECKING:
    from cluster import Cluster


def nodes_of(cluster: Cluster, job_id: str) -> str:
    return cluster.run("squeue", "-h", "-j", job_id, "-o", "%N").stdout.strip()


def warn(cluster: Cluster, job_id: str) -> None:
    """What SLURM sends before the time limit, to every process of the step."""
    sent = cluster.run("scancel", "--signal=USR2", job_id)
    assert sent.returncode == 0, sent.stderr


def terminate(cluster: Cluster, job_id: str) -> None:
    """What ends a job at its end, without any warning before."""
    sent = cluster.run("scancel", "--signal=TERM", job_id)
    assert sent.returncode == 0, sent.stderr


def preempt(cluster: Cluster, job_id: str) -> None:
    """A short job of a higher partition takes the nodes of this one."""
    where = (f"--nodelist={nodes_of(cluster, job_id)}", "--exclusive", "--nodes=2")
    argv = ("sbatch", "--partition=high", *where, "--output=/dev/null", "--wrap=sleep 3")
    sent = cluster.run(*argv)
    assert sent.returncode == 0, sent.stderr
    eventually(
        lambda: "PREEMPTED" in cluster.run("sacct", "-DXnj", job_id, "-o", "State%20").stdout,
        within=60,
        what="the preemption",
    )


def kill_node(cluster: Cluster, run: Path, node: int) -> int:
    """SIGKILL to the slurmd of a node of the run (where it lives) and to all that it has started,
    its own daemons of the steps included, as when a machine dies; how many of the run died."""
    from cluster_packages import ClusterError
    from restarting import kill_processes

    names = {
        os.fsdecode(env[b"SLURMD_NODENAME"])
        for env in processes_of(run, node).values()
        if b"SLURMD_NODENAME" in env
    }
    if len(names) != 1:
        return 0
    (name,) = names
    with contextlib.suppress(ClusterError):
        cluster.kill_node(name)
    return kill_processes(cluster, name)


def processes_of(run: Path, node: int) -> dict[int, dict[bytes, bytes]]:
    """pid -> environment of what lives of a run on one node: step, agent, launcher, ranks, and on
    node 0 the batch step."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            items = (entry / "environ").read_bytes().split(b"\0")
            env = {name: value for name, _, value in (item.partition(b"=") for item in items)}
            ours = env.get(b"PTX_RUN_DIR") == os.fsencode(run) or env.get(
                b"SLURM_JOB_NAME"
            ) == os.fsencode(run.name)
            number = env.get(b"PTX_NODE_RANK") or env.get(b"SLURM_NODEID")
            if ours and number == str(node).encode():
                found[int(entry.name)] = env
    return found


def kill(pid: int) -> bool:
    """SIGKILL; whether there was anybody."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def command(pid: int) -> str:
    try:
        data = (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return data.replace(b"\0", b" ").decode(errors="replace")


def ranks_of(run: Path, node: int) -> list[int]:
    """The processes that train."""
    return [
        pid
        for pid, env in processes_of(run, node).items()
        if b"RANK" in env and "agent.pyz" not in command(pid) and "train_" in command(pid)
    ]


def supervisors_of(run: Path) -> list[int]:
    """The supervisor of the run's job; its batch script, which holds it, is none."""
    plan = str(run / "bundle" / "plan.json")
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    words = {pid: command(pid).split() for pid in pids}
    return [pid for pid, argv in words.items() if "job" in argv and plan in argv and "-I" in argv]


def agents_of(run: Path, node: int) -> list[int]:
    return [pid for pid in processes_of(run, node) if "agent.pyz node" in command(pid)]
