"""A two-node run of tests/support/stepping.py on the real SLURM, and what it has written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cluster_processes
import yaml
from cluster import Cluster
from support.ptx import CHECKOUT, Ptx, eventually

from orchestrator.checkpoints.names import committed_folders
from orchestrator.runs.events import Event, read_events
from orchestrator.runs.layout import RunLayout


def stepping_spec(folder: Path, args: dict[str, Any], **sections: Any) -> Path:
    spec = {
        "name": "stepping",
        "scheduler": "slurm",
        "entrypoint": {"script": str(CHECKOUT / "tests/support/stepping.py"), "args": args},
        "restart": {"backoff": "1s"},
        **sections,
    }
    spec["resources"] = {"nodes": 2, "gpus_per_node": 0} | sections.get("resources", {})
    path = folder / "stepping.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


class SteppingRun:
    def __init__(self, ptx: Ptx, run: Path) -> None:
        self.ptx = ptx
        self.layout = RunLayout(run)

    @property
    def job(self) -> str:
        return self.events("submitted")[-1].text("job_id")

    def events(self, kind: str) -> list[Event]:
        return [event for event in read_events(self.layout) if event.type == kind]

    def steps(self) -> list[tuple[int, int]]:
        """(attempt, step) of every step, in order."""
        path = self.layout.root / "steps.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(one["attempt"], one["step"]) for one in map(json.loads, lines)]

    def lost(self) -> int:
        """Steps that were made more than once."""
        steps = [step for _, step in self.steps()]
        return len(steps) - len(set(steps))

    def endings(self) -> list[tuple[str, bool, bool, str | None]]:
        """(class, retry, counted, where) of every attempt."""
        return [
            (e.text("class"), e.fields["retry"], e.fields["counted"], e.fields["where"])
            for e in self.events("attempt_ended")
        ]

    def until_step(self, step: int, attempt: int = 0) -> None:
        self.until(lambda: (attempt, step) <= max(self.steps(), default=(-1, 0)), f"step {step}")

    def until_attempt(self, attempt: int) -> None:
        self.until(lambda: any(a >= attempt for a, _ in self.steps()), f"attempt {attempt}")

    def until(self, look: Any, what: str, within: float = 150) -> Any:
        return eventually(look, within=within, what=what, story=self.story)

    def ended(self) -> str:
        """SLURM's last word; accounting hears of the end some time after the queue."""
        self.until(lambda: not self.squeue(), "the job's end")
        self.until(lambda: self.sacct()[-1:] not in ([], ["RUNNING"], ["PENDING"]), "sacct")
        return self.sacct()[-1]

    def squeue(self) -> str:
        """Its row; nothing means that the job is gone, and not that SLURM did not answer."""
        argv = ["squeue", "-h", f"--name={self.layout.run_id}", "-o", "%i|%T|%N"]
        for _ in range(10):
            done = subprocess.run(argv, capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout.strip()
            time.sleep(1)
        raise AssertionError(done.stderr)

    def facts(self) -> str:
        argv = ["scontrol", "show", "job", "-o", self.job]
        return subprocess.run(argv, capture_output=True, text=True).stdout

    def sacct(self, job: str = "") -> list[str]:
        argv = ["sacct", "-nPX", "--duplicates", "-o", "State", "-j", job or self.job]
        return [
            row.split()[0]
            for row in subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()
        ]

    def nodes(self, attempt: int) -> list[str]:
        (event,) = [e for e in self.events("job_started") if e.integer("attempt") == attempt]
        return list(event.fields["nodes"])

    def committed(self) -> list[tuple[int, int]]:
        return [(f.step, f.attempt) for f in committed_folders(self.layout.checkpoints)]

    def story(self) -> str:
        return f"{self.squeue()}\n{self.ptx.story(self.layout.root)}"

    def end(self) -> None:
        subprocess.run(["scancel", f"--name={self.layout.run_id}"], check=False)


Start = Callable[..., SteppingRun]
"""With the script's arguments and sections of the spec; it ends with the test."""


@contextmanager
def silent_slurm(cluster: Cluster) -> Iterator[None]:
    """slurmctld is there and answers nobody."""
    pid = cluster_processes.running_pid(cluster.root / "pids" / "slurmctld")
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def processes_of(cluster: Cluster, node: str) -> list[int]:
    """Everything of jobs on this node, and the step daemons above it."""
    found: list[int] = []
    for pid in cluster_processes.all_pids():
        env = cluster_processes.environment(pid)
        ours = env.get(b"SLURM_CONF") == os.fsencode(cluster.conf)
        if ours and env.get(b"SLURMD_NODENAME") == node.encode() and b"SLURM_JOB_ID" in env:
            parent = cluster_processes.parent(pid)
            daemon = cluster_processes.command(parent).startswith(b"slurmstepd")
            found += [parent, pid] if daemon else [pid]
    marked = [pid for pid in cluster_processes.all_pids() if _below(pid, set(found))]
    return sorted({*found, *marked})


def _below(pid: int, roots: set[int]) -> bool:
    """launch.sh takes SLURM's variables out of the environment of the ranks."""
    while pid > 1:
        if pid in roots:
            return True
        pid = cluster_processes.parent(pid)
    return False


def kill_processes(cluster: Cluster, node: str, *, batch: bool = True) -> int:
    """SIGKILL all of them at once; how many there were. Without `batch` those that the node's agent
    has started, and itself."""
    pids = processes_of(cluster, node)
    if not batch:
        agents = {pid for pid in pids if _is_agent(pid)}
        pids = [pid for pid in pids if _below(pid, agents)]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(pids)


def freeze_agent(cluster: Cluster, node: str) -> list[int]:
    """SIGSTOP to the node's agent and all that it has started, as a machine does that thrashes;
    which they are. The step's daemon and SLURM's own answer as ever."""
    frozen: list[int] = []

    def all_stopped() -> bool:
        pids = processes_of(cluster, node)
        agents = {pid for pid in pids if _is_agent(pid)}
        frozen[:] = [pid for pid in pids if _below(pid, agents) and process_state(pid) != "Z"]
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return {process_state(pid) for pid in frozen} == {"T"}

    assert cluster_processes.wait_until(all_stopped, 30)
    return list(frozen)


def process_state(pid: int) -> str:
    """A letter, as in /proc/PID/stat; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _is_agent(pid: int) -> bool:
    argv = cluster_processes.command(pid).split(b"\0")
    return b"node" in argv and any(word.endswith(b"agent.pyz") for word in argv)


def kill_rank(cluster: Cluster, node: str) -> bool:
    """SIGKILL to one that trains there; whether there was one."""
    for pid in processes_of(cluster, node):
        argv = cluster_processes.command(pid)
        if b"stepping.py" in argv and b"agent.pyz" not in argv and b"torch" not in argv:
            os.kill(pid, signal.SIGKILL)
            return True
    return False
