"""What must hold of a run wherever it runs: told once, used for this machine and for SLURM."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from support.ptx import CHECKOUT, Ptx, eventually, exit_records, processes, rank_logs

LOCAL = ("--scheduler", "local")
SLURM = ("--scheduler", "slurm", "--nodes", "2")
TWO_CPU_RANKS = ("--set", "resources.gpus_per_node=0", "--set", "resources.procs_per_node=2")
LIMIT = 30
"""Seconds after which nothing of an ended run may be left."""


def completes(ptx: Ptx, launcher: str, where: tuple[str, ...], ranks: int) -> None:
    """The job completes; the ranks themselves saw the world size; every rank left its files."""
    spec = CHECKOUT / "jobs" / "hello.yaml"
    run = ptx.submit(spec, *where, *TWO_CPU_RANKS, "--launcher", launcher)
    waited = ptx("wait", run.name, "--timeout", "240s", timeout=300)
    assert waited.returncode == 0, waited.stdout + waited.stderr + ptx.story(run)

    total = ranks * (ranks + 1) // 2
    logs = rank_logs(run)
    assert [log.name for log in logs] == [f"rank-{rank:05d}.log" for rank in range(ranks)]
    for rank, log in enumerate(logs):
        assert f"rank {rank} of {ranks} on" in log.read_text()
        assert f"sum {total}" in log.read_text()
    records = exit_records(run)
    assert [record["rank"] for record in records] == list(range(ranks))
    assert all(record["exit_code"] == 0 for record in records)
    assert all(record["world_size"] == ranks for record in records)
    assert ptx.state(run)["state"] == "completed"
    assert not processes(run)


def submit_stubborn(ptx: Ptx, folder: Path, launcher: str, where: tuple[str, ...]) -> Path:
    """A run whose ranks ignore SIGTERM, and that stays down."""
    spec = folder / "stubborn.yaml"
    spec.write_text(
        f"name: stubborn\nentrypoint: {{script: '{CHECKOUT / 'tests/support/stubborn.py'}'}}\n"
        "restart: {on: []}\n"  # a node whose agent is killed would be started again
    )
    return ptx.submit(spec, *where, *TWO_CPU_RANKS, "--launcher", launcher)


def wait_until_ready(ptx: Ptx, run: Path, ranks: int) -> None:
    eventually(
        lambda: sum("ready" in log.read_text() for log in rank_logs(run)) == ranks,
        within=180,
        what=f"{ranks} ranks ready",
        story=lambda: ptx.story(run),
    )


def _first(run: Path, wanted: Callable[[str], bool]) -> int:
    alive = processes(run)
    chosen = sorted(pid for pid, command in alive.items() if wanted(command))
    assert chosen, f"no such process among {alive}"
    return chosen[0]


def agent(run: Path) -> int:
    """The agent of a node."""
    return _agents(run)[0]


def _agents(run: Path) -> list[int]:
    """They do not bear the mark that they give: found by their plan."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"node" in argv and str(run / "bundle/plan.json").encode() in argv and b"-I" in argv:
                found.append(int(entry.name))
    assert found, "no agent is running"
    return found


def launcher(run: Path) -> int:
    """The process that the agent started: launch.sh, which has become the launcher."""
    return _parent_is(run, agent(run))


def inner_launcher(run: Path) -> int:
    """The parent of the shims, which deepspeed keeps apart from its runner."""
    return _parent(shim(run))


def _parent(pid: int) -> int:
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def _parent_is(run: Path, parent: int) -> int:
    for pid in processes(run):
        if _parent(pid) == parent:
            return pid
    raise AssertionError(f"process {parent} has no child that bears the mark")


def shim(run: Path) -> int:
    """Its launcher has all of a shim's command line at the end of its own."""

    def is_shim(command: str) -> bool:
        words = command.split()
        return words[1:2] + words[4:5] == ["-I", "shim"]

    return _first(run, is_shim)


def rank(run: Path) -> int:
    return _first(run, lambda command: "stubborn.py" in command and "agent.pyz" not in command)


VICTIMS = {
    "agent": agent,
    "launcher": launcher,
    "inner launcher": inner_launcher,
    "shim": shim,
    "rank": rank,
}


def a_kill_leaves_nothing(
    ptx: Ptx, folder: Path, launcher: str, where: tuple[str, ...], ranks: int
) -> None:
    """One run for each victim, side by side: most of the time is the grace that ranks are given."""
    apart = launcher == "deepspeed"
    victims = [victim for victim in VICTIMS if apart or victim != "inner launcher"]
    runs = {victim: submit_stubborn(ptx, folder, launcher, where) for victim in victims}
    for run in runs.values():
        wait_until_ready(ptx, run, ranks)
    started_by_an_agent = _parent(inner_launcher(runs["launcher"])) in _agents(runs["launcher"])
    assert started_by_an_agent != apart, "else there is one victim more, or one less"
    killed = {victim: _kill(run, victim) for victim, run in runs.items()}
    for victim, run in runs.items():
        nothing_is_left(ptx, run, f"kill -9 of the {victim}")
        assert not (Path("/proc") / str(killed[victim])).exists()
    for victim, run in runs.items():
        waited = ptx("wait", run.name, "--timeout", "90s")
        assert waited.returncode == 1, f"{victim}: {waited.stdout}{waited.stderr}{ptx.story(run)}"


def _kill(run: Path, victim: str) -> int:
    assert len(processes(run)) >= 2
    pid = VICTIMS[victim](run)
    os.kill(pid, signal.SIGKILL)
    return pid


def nothing_is_left(ptx: Ptx, run: Path, after: str) -> None:
    eventually(
        lambda: not processes(run),
        within=LIMIT,
        what=f"no process left after {after}",
        story=lambda: f"left: {processes(run)}\n{ptx.story(run)}",
    )


def a_cancelled_run_leaves_nothing(
    ptx: Ptx, folder: Path, launcher: str, where: tuple[str, ...], ranks: int
) -> None:
    run = submit_stubborn(ptx, folder, launcher, where)
    wait_until_ready(ptx, run, ranks)
    assert processes(run)
    ptx.ok("cancel", run.name)
    nothing_is_left(ptx, run, "cancel")
    eventually(
        lambda: ptx.state(run)["state"] == "cancelled",
        within=60,
        what="the run is said to be cancelled",
        story=lambda: ptx.story(run),
    )
