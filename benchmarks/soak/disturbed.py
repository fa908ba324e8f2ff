"""Real training on a SLURM here, disturbed in every way under every launcher and strategy.

    python benchmarks/soak/disturbed.py [--only PATTERN]

Two nodes of one rank. Each run is warned (SIGUSR2), terminated (SIGTERM; a person then types
`ptx resume`), preempted by a higher partition, or reaches its time limit. The attempts must have
ended as that, the losses be those of an undisturbed run, bit for bit, and no step be done twice.
Wants root and Debian (see tests/slurm/README.md). Kept in benchmarks/results/disturbed.txt; exit
code 1 where a case fails.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("benchmarks", "tests", "tests/slurm")]

from cluster import Cluster  # noqa: E402
from measure import machine, machine_line  # noqa: E402
from support import disturb, kept_work  # noqa: E402
from support.ptx import LAUNCHERS, Ptx, eventually  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "disturbed.txt"
ON_SLURM = ("--scheduler", "slurm", "--nodes", "2", "--set", "resources.procs_per_node=1")
HERE = ("--scheduler", "local")
SHORT, LONG = 160, 4000
"""Steps; a time limit is counted in minutes."""
LIMIT = {"resources__time_limit": "2m", "slurm__signal_before": 60}


def nothing(_cluster: Cluster, _job_id: str) -> None:
    """SLURM does it by itself."""


class Way(NamedTuple):
    hit: Callable[[Cluster, str], None]
    ends: str
    """The class of each attempt that it ends."""
    steps: int = SHORT
    settings: Mapping[str, object] = {}


WAYS = {
    "warned": Way(disturb.warn, "time-limit"),
    "terminated": Way(disturb.terminate, "cancelled"),
    "preempted": Way(disturb.preempt, "preempted"),
    "time limit": Way(nothing, "time-limit", LONG, LIMIT),
}


class Soak:
    def __init__(self, ptx: Ptx, cluster: Cluster) -> None:
        self.ptx, self.cluster = ptx, cluster
        self.peace: dict[tuple[str, int], dict[int, float]] = {}

    def undisturbed(self, strategy: str, steps: int) -> dict[int, float]:
        if (strategy, steps) not in self.peace:
            run = kept_work.submit(self.ptx, HERE, steps, **kept_work.STRATEGIES[strategy])
            self.ptx.ok("wait", run.name, "--timeout", "1200s", timeout=1300)
            self.peace[strategy, steps] = kept_work.losses(run)
        return self.peace[strategy, steps]

    def case(self, launcher: str, strategy: str, way: str) -> str:
        """What was wrong; empty where nothing was."""
        hit, ends, steps, settings = WAYS[way]
        expected = self.undisturbed(strategy, steps)
        run = kept_work.submit(
            self.ptx,
            (*ON_SLURM, "--launcher", launcher),
            steps,
            **(
                kept_work.STRATEGIES[strategy]
                | {"restart__max": 3, "restart__backoff": "1s"}
                | dict(settings)
            ),
        )
        eventually(
            lambda: kept_work.last_step(run) > kept_work.EVERY + 5, within=240, what="some steps"
        )
        hit(self.cluster, str(self.ptx.state(run)["job_id"]))
        ended = self.ptx("wait", run.name, "--timeout", "900s", timeout=930)
        if way == "terminated":
            if ended.returncode != 1:
                return f"it was to stay down, and `ptx wait` gave {ended.returncode}"
            self.ptx.ok("resume", run.name)
            ended = self.ptx("wait", run.name, "--timeout", "900s", timeout=930)
        if ended.returncode:
            return f"it did not complete: {ended.stderr.strip()[-300:]}"
        said = "completed"  # by the ranks; the supervisor says it a moment later
        eventually(
            lambda: kept_work.classes(run)[-1:] == [said], within=60, what=f"its end, {said}"
        )
        disturbed = kept_work.classes(run)[:-1]
        if {*disturbed} != {ends}:
            told = [f"{one['class']} ({one['message']})" for one in kept_work.ends(run)[:-1]]
            return f"its attempts ended as {', '.join(told)}, not as {ends}"
        if lost := kept_work.steps_lost(run):
            return f"{lost} steps were done again"
        return "" if kept_work.losses(run) == expected else "other losses"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="as 'torchrun fsdp *'")
    args = parser.parse_args()
    cases = [
        (launcher, strategy, way)
        for launcher in LAUNCHERS
        for strategy in kept_work.STRATEGIES
        for way in WAYS
        if fnmatch.fnmatch(f"{launcher} {strategy} {way}", args.only)
    ]
    command = " ".join(["$ python benchmarks/soak/disturbed.py", *sys.argv[1:]])
    where = machine(["torch", "accelerate", "deepspeed"])
    lines = []
    with tempfile.TemporaryDirectory(prefix="ptx-disturbed-", dir="/tmp") as folder:
        cluster = Cluster(Path(folder) / "c", port=29790)
        cluster.start()
        try:
            soak = Soak(Ptx(Path(folder) / "runs", env={"SLURM_CONF": str(cluster.conf)}), cluster)
            for case in cases:
                wrong = soak.case(*case)
                lines.append(f"{case[0]:<10} {case[1]:<6} {case[2]:<10} {wrong or 'bitwise equal'}")
                print(lines[-1], flush=True)
        finally:
            cluster.stop()
    failed = sum(not line.endswith("bitwise equal") for line in lines)
    lines.append(f"{len(cases) - failed} of {len(cases)} bitwise equal, no step done twice")
    print(lines[-1])
    head = f"{command}\n{machine_line(where)}\n"
    RESULT.write_text(head + "\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
