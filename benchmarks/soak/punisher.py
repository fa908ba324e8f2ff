"""A training on the test SLURM while ranks, agents, nodes, daemons and its supervisor are
killed at random.

    python benchmarks/soak/punisher.py [--minutes 10] [--steps 28000] [--seed 0]

Starts a SLURM of four nodes here (root, Debian; see tests/slurm/README.md), trains once in peace
and once under blows, and compares the losses step by step. Exit code 1 where they differ, the run
does not end by itself, it ended before the blows did, or one kind of blow never hit. Kept in
benchmarks/results/punisher.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("benchmarks", "tests", "tests/slurm")]

from cluster import Cluster, ClusterError  # noqa: E402
from measure import machine, machine_line  # noqa: E402
from support import disturb, kept_work  # noqa: E402
from support.ptx import Ptx  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "punisher.txt"
WHERE = ("--scheduler", "slurm", "--nodes", "2", "--set", "resources.procs_per_node=1")
ENDURING = {
    "restart__max": 1000,
    "restart__on": "[preempted, time-limit, node-failure, failed]",
    "restart__backoff": "1s",
}
KINDS = ("rank", "agent", "node", "slurmd alone", "supervisor")
PAUSE = (15.0, 40.0)
"""Seconds between two blows, drawn anew each time."""
REPAIR = 50.0
"""Seconds after which a dead slurmd is started again."""


class Punisher:
    def __init__(self, cluster: Cluster, run: Path, seed: int) -> None:
        self.cluster, self.run, self.random = cluster, run, random.Random(seed)  # noqa: S311 - blows, no secrets
        self.blows: Counter[str] = Counter()
        self.waiting: list[str] = []
        """Kinds of blows still to come in this round."""
        self.story: list[str] = []
        self.ended_before = False
        """Whether the run had ended before the last blow was due."""
        self.repair_at: float | None = None

    def strike(self) -> str:
        """One blow, or why there was none. Each kind comes once before any comes again."""
        node = self.random.randrange(2)
        kinds: dict[str, Callable[[int], bool]] = {  # as KINDS names them
            "rank": lambda node: any(map(disturb.kill, disturb.ranks_of(self.run, node)[:1])),
            "agent": lambda node: any(map(disturb.kill, disturb.agents_of(self.run, node))),
            "node": self._node,
            "slurmd alone": self._slurmd,
            "supervisor": lambda _: any(map(disturb.kill, disturb.supervisors_of(self.run))),
        }
        if not self.waiting:
            self.waiting = self.random.sample(KINDS, len(KINDS))
        kind = self.waiting[0]
        hit = kinds[kind](node)
        if hit:
            self.waiting.pop(0)
        self.blows[kind if hit else "missed"] += 1
        return f"{kind} of node {node}" if hit else f"{kind} of node {node}: nobody there"

    def _node(self, node: int) -> bool:
        if not disturb.kill_node(self.cluster, self.run, node):
            return False  # nor put off the repair of those for which the run waits
        self.repair_at = time.monotonic() + REPAIR
        return True

    def _slurmd(self, node: int) -> bool:
        """The daemon alone: the ranks live on, and know nothing of it."""
        names = {
            os.fsdecode(env[b"SLURMD_NODENAME"])
            for env in disturb.processes_of(self.run, node).values()
            if b"SLURMD_NODENAME" in env
        }
        if len(names) != 1:
            return False
        try:
            self.cluster.kill_node(names.pop())
        except ClusterError:
            return False  # it was dead already
        self.repair_at = time.monotonic() + REPAIR
        return True

    def repair(self) -> None:
        if self.repair_at is not None and time.monotonic() > self.repair_at:
            self.cluster.start()
            self.repair_at = None


def trained(ptx: Ptx, steps: int, **more: object) -> Path:
    return kept_work.submit(ptx, WHERE, steps, **(ENDURING | more))


def ended(ptx: Ptx, run: Path) -> bool:
    return ptx("wait", run.name, "--timeout", "1s").returncode != 124


def punish(ptx: Ptx, cluster: Cluster, run: Path, *, minutes: float, seed: int) -> Punisher:
    punisher = Punisher(cluster, run, seed)
    until = time.monotonic() + 60 * minutes
    strike_at = time.monotonic() + 30
    while not ended(ptx, run):
        now = time.monotonic()
        if strike_at < now < until:
            step = kept_work.last_step(run)
            punisher.story.append(f"step {step:5d}: {punisher.strike()}")
            print(punisher.story[-1], flush=True)
            strike_at = now + punisher.random.uniform(*PAUSE)
        punisher.repair()
        if now > until + 1200:
            break
        time.sleep(1)
    punisher.ended_before = time.monotonic() < until
    return punisher


def _ratio(status: dict[str, Any]) -> str:
    told = status["goodput"]
    kept, wall = told["kept_seconds"], told["wall_seconds"]
    return f"{told['effective_training_time_ratio']:.2f} ({kept:.0f} of {wall:.0f} s)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--steps", type=int, default=28000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ptx-punisher-", dir="/tmp") as folder:
        cluster = Cluster(Path(folder) / "c", port=29810)
        cluster.start()
        try:
            return soak(Path(folder), cluster, args)
        finally:
            cluster.stop()


def soak(folder: Path, cluster: Cluster, args: argparse.Namespace) -> int:
    ptx = Ptx(folder / "runs", env={"SLURM_CONF": str(cluster.conf)})
    peace = trained(ptx, args.steps)
    ptx.ok("wait", peace.name, "--timeout", "3600s", timeout=3700)
    run = trained(ptx, args.steps)
    punisher = punish(ptx, cluster, run, minutes=args.minutes, seed=args.seed)
    status = json.loads(ptx("status", run.name, "--json").stdout)
    expected, found = kept_work.losses(peace), kept_work.losses(run)
    same = expected == found
    missed = sorted({*KINDS} - {*punisher.blows})
    command = " ".join(["$ python benchmarks/soak/punisher.py", *sys.argv[1:]])
    lines = [
        f"{command}\n{machine_line(machine(['torch']))}",
        *punisher.story,
        f"seed {args.seed}, {args.steps} steps, blows for {args.minutes:g} minutes",
        f"blows: {dict(punisher.blows)}; never hit: {', '.join(missed) or 'none of the kinds'}",
        f"the run ended before the last blow was due: {punisher.ended_before}",
        f"attempts: {kept_work.attempts(run)}, steps done again: {kept_work.steps_lost(run)}",
        f"state: {status['state']}",
        f"losses of all {len(found)} steps bitwise those in peace: {same}",
        f"last loss: {found.get(args.steps)} (in peace {expected.get(args.steps)})",
        f"effective training time ratio: {_ratio(status)}",
    ]
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n")
    completed = same and status["state"] == "completed"
    if not completed:
        print(ptx.story(run)[-20000:])
    return 0 if completed and not missed and not punisher.ended_before else 1


if __name__ == "__main__":
    sys.exit(main())
