"""Failures that only SLURM can bring about, or that look different over two nodes, and what
`ptx why` has to say of each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.ptx import Ptx, eventually
from support.why_case import SUM, Case, gloo

WAITED_FOR = 180
QUIET = "import time\nprint('step 1', flush=True)\ntime.sleep(600)\n"
START = "import os, time\nrank = int(os.environ['RANK'])\n"


@dataclass(frozen=True)
class SlurmCase(Case):
    nodes: int = 2
    act: Callable[[Ptx, Path], None] | None = None
    """What is done to the run once it is submitted."""
    kind_told: str = "failed"
    """`verdict` of the answer: waiting is asked while the run waits, and cancelled afterwards."""
    alone: bool = False
    """It takes nodes from whatever else runs."""
    resources: dict[str, Any] = field(default_factory=dict)


def rank_2(body: str) -> str:
    """What rank 2, the first of the node that came second, does a second in; the others wait to
    be ended."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"{START}if rank == 2:\n    time.sleep(1)\n{lines}time.sleep(100)\n"


def job_of(ptx: Ptx, run: Path) -> str:
    return str(ptx.state(run)["job_id"])


def slurm(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def state_of(job: str) -> str:
    return slurm("squeue", "-h", "-j", job, "-o", "%T")


def until_printed(ptx: Ptx, run: Path) -> None:
    """Every rank has got as far as its first words."""

    def look() -> bool:
        logs = list(run.glob("attempts/000/node-*/rank-*.log"))
        return len(logs) >= 2 and all(b"step 1" in log.read_bytes() for log in logs)

    eventually(look, within=WAITED_FOR, what="first words", story=lambda: ptx.story(run))


def cancel(ptx: Ptx, run: Path) -> None:
    until_printed(ptx, run)
    ptx.ok("cancel", run.name)


def scancel(ptx: Ptx, run: Path) -> None:
    until_printed(ptx, run)
    slurm("scancel", job_of(ptx, run))


def preempt(ptx: Ptx, run: Path) -> None:
    """A job of the partition that goes first wants all nodes."""
    until_printed(ptx, run)
    more = ("--parsable", "-p", "high", "-N4", "--exclusive", "--wrap", "sleep 20")
    slurm("sbatch", "-o", "/dev/null", *more)


def kill_node(ptx: Ptx, run: Path) -> None:
    """The daemon of the run's second node dies, and what it has started with it."""
    until_printed(ptx, run)
    names = slurm("squeue", "-h", "-j", job_of(ptx, run), "-o", "%N")
    second = slurm("scontrol", "show", "hostnames", names).split()[1]
    root = Path(slurm("scontrol", "show", "config").partition("SLURM_CONF")[2].split()[1])
    script = Path(__file__).parents[1] / "slurm" / "cluster.py"
    folder = root.parents[1]
    slurm(sys.executable, str(script), "kill-node", second, "--dir", str(folder))


def held(ptx: Ptx, run: Path) -> None:
    until_waits(ptx, run, "JobHeld")


def begins_later(ptx: Ptx, run: Path) -> None:
    until_waits(ptx, run, "BeginTime")


def until_waits(ptx: Ptx, run: Path, *reasons: str) -> None:
    job = job_of(ptx, run)

    def look() -> bool:
        said = slurm("squeue", "-h", "-j", job, "-o", "%T %r")
        return any(f"PENDING {reason}" in said for reason in reasons)

    eventually(look, within=60, what=f"pending for {reasons}", story=lambda: ptx.story(run))


def waiting(name: str, rule: str, act: Callable[[Ptx, Path], None], **more: Any) -> SlurmCase:
    return SlurmCase(
        name, "waiting", QUIET, "pending", None, rule, act=act, kind_told="waiting", **more
    )


SLURM_CASES: tuple[SlurmCase, ...] = (
    *(
        SlurmCase(
            f"other-node-{launcher}",
            "the script's own error",
            rank_2("raise ValueError('bad batch 17')"),
            "failed",
            2,
            None,
            launcher=launcher,
        )
        for launcher in ("torchrun", "accelerate", "deepspeed")
    ),
    *(
        SlurmCase(
            f"slurm-hang-{launcher}",
            "hang",
            gloo(
                "for step in range(100):\n    if rank == 3 and step == 3:\n"
                "        time.sleep(600)\n    " + SUM + "    print('step', step, flush=True)\n"
            ),
            "hang",
            3,
            "hang",
            launcher=launcher,
            spec={"restart": {"hang_after": "6s"}},
        )
        for launcher in ("torchrun", "accelerate", "deepspeed")
    ),
    SlurmCase(
        "node-segfault",
        "segfault",
        rank_2("import ctypes\nctypes.string_at(0)"),
        "failed",
        2,
        "segfault",
    ),
    SlurmCase(
        "node-killed-deepspeed",
        "killed",
        rank_2("os.kill(os.getpid(), 9)"),
        "failed",
        2,
        "killed",
        launcher="deepspeed",
    ),
    SlurmCase(
        "node-peer-raised",
        "connection closed",
        gloo(
            "for step in range(100):\n    if rank == 2 and step == 3:\n"
            "        raise RuntimeError('shard 5 is corrupt')\n    " + SUM
        ),
        "failed",
        2,
        None,
    ),
    SlurmCase(
        "node-no-space-accelerate",
        "no space",
        rank_2("file = open('/dev/full', 'wb', 0)\nfile.write(b'x')"),
        "failed",
        2,
        "no-space",
        launcher="accelerate",
    ),
    SlurmCase(
        "slurm-setup",
        "setup line",
        "print('never runs')\n",
        "launch-error",
        None,
        "command-not-found",
        spec={"setup": ["nosuchmodule load cuda"]},
    ),
    SlurmCase(
        "one-nodes-setup",
        "setup line",
        QUIET,
        "launch-error",
        None,
        "setup-file-missing",
        spec={"setup": ['[ "$PTX_NODE_RANK" = 0 ] || source /no/such/venv/bin/activate']},
    ),
    SlurmCase(
        "killed-for-memory",
        "job's memory",
        rank_2("held = bytearray(280 << 20)\nos.kill(os.getpid(), 9)"),
        "out-of-memory",
        2,
        "killed-for-memory",
        resources={"memory": "300M"},
    ),
    SlurmCase(
        "time-limit",
        "time limit",
        QUIET,
        "time-limit",
        None,
        "time-limit",
        nodes=1,
        spec={"restart": {"on": []}},
        resources={"time_limit": "1m"},
    ),
    SlurmCase(
        "cancelled",
        "cancelled",
        QUIET,
        "cancelled",
        None,
        "",
        act=cancel,
        kind_told="ended",
        nodes=1,
    ),
    SlurmCase(
        "scancelled",
        "cancelled",
        QUIET,
        "cancelled",
        None,
        "",
        act=scancel,
        kind_told="ended",
        nodes=1,
    ),
    waiting("held", "slurm:JobHeldUser", held, spec={"slurm": {"options": {"hold": True}}}),
    waiting(
        "begins-later",
        "slurm:BeginTime",
        begins_later,
        spec={"slurm": {"options": {"begin": "now+1hour"}}},
    ),
    SlurmCase(
        "preempted",
        "preemption",
        QUIET,
        "preempted",
        None,
        "preempted",
        act=preempt,
        alone=True,
        spec={"restart": {"on": []}},
    ),
    SlurmCase(
        "node-failure",
        "node failure",
        QUIET,
        "node-failure",
        None,
        "node-failure",
        act=kill_node,
        alone=True,
        spec={"restart": {"on": []}},
    ),
)

SLURM_IN_TESTS = (
    "other-node-deepspeed",
    "slurm-hang-torchrun",
    "one-nodes-setup",
    "cancelled",
    "held",
)
"""Names of those that run with the tests; all of them: benchmarks/soak/why_corpus.py --slurm."""
