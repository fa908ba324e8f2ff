"""`ptx status` with ten thousand runs, two thousand of them live on SLURM.

    python benchmarks/many_runs.py [RUNS] [LIVE]

Run folders, events, exit records, heartbeats and metrics are written by the functions with which
ptx and its agents write them, under a clock that is set back, and without fsync. The live ones'
states come from an squeue, an sacct and an scontrol on PATH that note each call and answer with
what SLURM prints for such jobs. Nothing real can be cold here: the page cache cannot be dropped
without harming the other work of a machine, so "cold" means that ptx's index was deleted.

Each round runs every command once, in turn. Figures are medians over the rounds; beside them what
`ptx --version` takes in the same rounds, and the part that is not start-up.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import RESULTS, machine, machine_line, save

from orchestrator.agent.events import Events
from orchestrator.agent.exit_record import write_record
from orchestrator.agent.heartbeat import Heartbeat
from orchestrator.preparation import Choices, Prepared, prepare
from orchestrator.runs.create import create_run
from orchestrator.runs.events import ClientEvents
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import this_process
from orchestrator.runs.records import RunRecord
from orchestrator.runs.registry import register

ROOT = Path(__file__).resolve().parent.parent
DAYS = 90
_ON_CPU = Choices(scheduler="slurm", settings=("resources.gpus_per_node=0",))
GOALS = {"warm": 0.3, "cold": 1.0, "memory": 200.0}
NAMES = ("llama-8b", "vit-sweep", "bert-ft", "ablation", "quickstart")


@dataclass
class Case:
    """One run that is to be made."""

    run_id: str
    created: float
    live: bool
    end: str
    job_id: str
    nodes: int
    procs: int = 4


def cases(runs: int, live: int, now: float) -> list[Case]:
    chance = random.Random(5)  # noqa: S311 - a distribution, not a secret
    living = set(chance.sample(range(runs), live))
    made = []
    for number in range(runs):
        alive = number in living
        age = chance.uniform(0.1, 6 if alive else DAYS) * 86400
        ends = ("completed", "failed", "cancelled", "time-limit")
        made.append(
            Case(
                f"{chance.choice(NAMES)}-{number:06d}",
                now - age,
                alive,
                chance.choices(ends, (70, 20, 7, 3))[0],
                str(100_000 + number),
                chance.choice((1, 1, 2, 4)),
            )
        )
    return made


def make(root: Path, chosen: list[Case]) -> None:
    """All the folders, each with the events that such a run has left."""
    os.fsync = lambda _: None  # type: ignore[assignment]
    template = prepare(ROOT / "jobs/hello.yaml", _ON_CPU, root)
    files = tuple(file for file in template.bundle if file.path != "agent.pyz")
    template = replace(template, bundle=replace(template.bundle, files=files))
    for case in chosen:
        _make_one(template, root, case)


class Clock:
    """Says what it was set to, and goes on by a hundredth of a second each time."""

    def __init__(self, t: float) -> None:
        self.t = t

    def __call__(self) -> float:
        self.t += 0.01
        return self.t


def _make_one(template: Prepared, root: Path, case: Case) -> None:
    clock = Clock(case.created)
    with mock.patch("time.time", clock):
        layout = _submit(template, root, case)
        clock.t += 60
        waits = case.live and int(case.job_id) % 5 == 0
        if not waits:
            _start(layout, case)
            clock.t += 3600
            if not case.live:
                _end(layout, case)
    for path in (*layout.events.iterdir(), layout.events):
        os.utime(path, (clock.t, clock.t))


def _submit(template: Prepared, root: Path, case: Case) -> RunLayout:
    folder = root / case.run_id
    record = RunRecord(
        run_id=case.run_id,
        name=case.run_id[:-7],
        created=round(case.created, 3),
        scheduler="slurm",
        launcher="torchrun",
        nodes=case.nodes,
        procs_per_node=case.procs,
        world_size=case.nodes * case.procs,
        user="ann",
        host="login1",
        spec_path=f"/home/ann/{case.run_id[:-7]}.yaml",
        ptx_version="0.1.0",
        argv=("ptx", "submit", f"{case.run_id[:-7]}.yaml"),
    )
    events = ClientEvents(RunLayout(folder))
    layout = create_run(
        record,
        replace(template.bundle, run_id=case.run_id, run_dir=folder),
        template.loaded.text,
        secrets={},
        group_shared=False,
        intend=lambda: events.append("intent", scheduler="slurm", **vars(this_process())),
    )
    events.append("submitted", job_id=case.job_id)
    register(layout)
    return layout


def _start(layout: RunLayout, case: Case) -> None:
    job = Events(layout.events / "job.jsonl", 0o600)
    hosts = [f"gpu{node:04d}" for node in range(case.nodes)]
    job.append("job_started", job_id=case.job_id, attempt=0, host=hosts[0], nodes=hosts)
    os.close(job._descriptor)
    for node, host in enumerate(hosts):
        layout.node(0, node).mkdir(parents=True)
        agent = Events(layout.events / f"a000-node-{node:04d}.jsonl", 0o600)
        agent.append("node_started", attempt=0, node=node, host=host, pid=4711)
        os.close(agent._descriptor)
        beat = Heartbeat(layout.node(0, node) / "heartbeat", 0o600)
        beat.beat_if_due()
        os.close(beat._descriptor or 0)
    with layout.metrics(0).open("w") as file:
        for step in range(0, 300, 10):
            file.write(
                json.dumps({"v": 1, "t": time.time(), "step": step, "steps": 300, "loss": 2.5})
                + "\n"
            )


def _end(layout: RunLayout, case: Case) -> None:
    completed = case.end == "completed"
    code = {"completed": 0, "failed": 1}.get(case.end, -15)
    if case.end == "cancelled":
        ClientEvents(layout).append("cancel", user="ann")
    for node in range(case.nodes):
        ranks = range(node * case.procs, (node + 1) * case.procs)
        first = {"rank": ranks[0], "code": code, "signal": None, "t": time.time()}
        said = first | {"message": "ValueError: the batch is bad"} if code == 1 else None
        agent = Events(layout.events / f"a000-node-{node:04d}.jsonl", 0o600)
        agent.append(
            "node_ended",
            attempt=0,
            node=node,
            rc=abs(code),
            reason={0: "completed", 1: "rank-failed"}.get(code, "terminated"),
            ranks={str(rank): code for rank in ranks},
            first_failure=said,
            stepped=True,
            message=None,
        )
        os.close(agent._descriptor)
        for rank in ranks:
            exit_record = {"v": 1, "rank": rank, "exit_code": code, "last_lines": []}
            write_record(str(layout.exit_record(0, node, rank)), exit_record, 0o600)
    job = Events(layout.events / "job.jsonl", 0o600)
    fields = {"message": "" if completed else "it ended", "retry": False, "counted": False}
    job.append(
        "attempt_ended",
        attempt=0,
        **{"class": case.end},
        **fields,
        where=None,
        nodes_failed=[],
        early=None,
    )
    os.close(job._descriptor)


def stand_in_slurm(folder: Path, chosen: list[Case]) -> Path:
    """squeue, sacct and scontrol as programs; each call is a line in the file that is returned.

    squeue answers in the format that it is asked for; it has forgotten some of the jobs, as after
    MinJobAge, and those sacct knows.
    """
    folder.mkdir()
    calls, rows = folder / "calls", folder / "rows"
    calls.touch()
    with rows.open("w") as file:
        for case in chosen:
            if case.live:
                waits = int(case.job_id) % 5 == 0
                state = ("PENDING", "Priority") if waits else ("RUNNING", "None")
                file.write("|".join((case.job_id, *state, case.run_id)) + "\n")
    programs = {
        "scontrol": "echo 'Slurmctld(primary) at head is UP'",
        "squeue": f'case "$*" in *%j*) cat {rows};; *) cut -d"|" -f1-3 {rows};; esac',
        "sacct": ":",
    }
    for name, does in programs.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {calls}\n{does}\n")
        (folder / name).chmod(0o755)
    return calls


@dataclass
class Ran:
    seconds: float
    cpu: float
    """Seconds of processor time, of its children too."""
    memory: float
    """Peak resident MiB of ptx itself."""
    out: bytes


def run(argv: list[str], env: dict[str, str], *, terminal: bool = False) -> Ran:
    """With output to a pipe, or to a terminal of 40 rows."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    begun = time.perf_counter()
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    out = bytearray()
    while True:
        try:
            block = os.read(ours, 1 << 20)
        except OSError:
            break
        if not block:
            break
        out += block
    os.close(ours)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(time.perf_counter() - begun, cpu, usage.ru_maxrss / 1024, bytes(out))


def measure(folder: Path, rounds: int, calls: Path) -> dict[str, dict[str, float]]:
    ptx = shutil.which("ptx") or sys.exit("ptx is not installed here")
    env = {
        **os.environ,
        "PTX_RUNS": str(folder / "runs"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PATH": f"{calls.parent}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "COLUMNS": "120",
        "LINES": "40",
    }
    index = folder / "state" / "ptx" / "index"
    commands: dict[str, tuple[list[str], bool]] = {
        "start-up (--version)": (["--version"], False),
        "cold, on a terminal": (["status"], True),
        "warm, on a terminal": (["status"], True),
        "warm, --state failed": (["status", "--state", "failed"], True),
        "warm, --all": (["status", "--all"], True),
        "warm, --json of all": (["status", "--json", "--all"], False),
    }
    seen: dict[str, list[Ran]] = {name: [] for name in commands}
    asked: dict[str, list[list[str]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, (words, terminal) in commands.items():
            if name.startswith("cold"):
                shutil.rmtree(index, ignore_errors=True)
            calls.write_text("")
            seen[name].append(run([ptx, *words], env, terminal=terminal))
            asked[name].append(calls.read_text().split())
    return {
        name: {
            "seconds": statistics.median(one.seconds for one in ran),
            "cpu_seconds": statistics.median(one.cpu for one in ran),
            "memory_mib": max(one.memory for one in ran),
            "squeue": max(words.count("squeue") for words in asked[name]),
            "sacct": max(words.count("sacct") for words in asked[name]),
            "bytes": len(ran[-1].out),
        }
        for name, ran in seen.items()
    }


def table(found: dict[str, dict[str, float]]) -> str:
    start = found["start-up (--version)"]["seconds"]
    lines = [
        f"{'':24}{'seconds':>9}{'less start':>12}{'CPU':>8}{'MiB':>7}{'squeue':>8}{'sacct':>7}"
    ]
    for name, one in found.items():
        lines.append(
            f"{name:24}{one['seconds']:9.3f}{one['seconds'] - start:12.3f}"
            f"{one['cpu_seconds']:8.3f}{one['memory_mib']:7.0f}{one['squeue']:8.0f}{one['sacct']:7.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="?", type=int, default=10_000)
    parser.add_argument("live", nargs="?", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="keep the runs here, and use those there")
    parser.add_argument("--out", type=Path, default=RESULTS / "many_runs")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ptx-many-") as scratch:
        folder = chosen.folder or Path(scratch)
        calls = folder / "bin" / "calls"
        if not calls.exists():
            os.environ["XDG_STATE_HOME"] = str(folder / "state")
            wanted = cases(chosen.runs, chosen.live, time.time())
            begun = time.perf_counter()
            make(folder / "runs", wanted)
            calls = stand_in_slurm(folder / "bin", wanted)
            print(f"made {chosen.runs} runs in {time.perf_counter() - begun:.0f} s")
        load = round(os.getloadavg()[0], 2)
        # Measured first: a child's peak counts the parent's memory that it began with, and torch,
        # which is asked for the GPU's name, would be the larger of the two.
        found = measure(folder, chosen.rounds, calls)
        before = machine(["typer"]) | {"load": load}
    head = f"{chosen.runs} runs, {chosen.live} live on SLURM; {machine_line(before)}"
    text = f"{head}\n\n{table(found)}"
    print(text)
    save(text, {"machine": before, "found": found, "goals": GOALS}, chosen.out)


if __name__ == "__main__":
    main()
