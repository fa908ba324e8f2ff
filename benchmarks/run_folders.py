"""Folders of runs as ptx and its agents leave them, thousands of them.

Events, exit records, heartbeats and metrics are written by the functions with which ptx and its
agents write them, under a clock that is set back, and without fsync.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

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
