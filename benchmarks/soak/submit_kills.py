"""kill -9 of `ptx submit` at every labelled point, 40 times each, against a real SLURM.

Usage: python benchmarks/soak/submit_kills.py [TIMES], with SLURM_CONF naming the cluster
(python tests/slurm/cluster.py start makes one on this machine). Jobs are held, so none starts;
each is cancelled once it was counted. Kept in benchmarks/results/submit_kills.txt.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from measure import machine, machine_line  # noqa: E402
from support.kill_at import POINTS  # noqa: E402
from support.submit_kills import Verdict, killed_at  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "submit_kills.txt"


_HEAD = f"{'killed':<38} runs submitted  not doubles orphans"


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    command = f"$ python benchmarks/soak/submit_kills.py {times}"
    lines = [command, machine_line(machine(["submitit"])), _HEAD]
    wrong: list[Verdict] = []
    for point in POINTS:
        verdicts = [_one(point) for _ in range(times)]
        wrong += [verdict for verdict in verdicts if not verdict.right]
        jobs = Counter(len(verdict.jobs) for verdict in verdicts)
        orphans = sum(bool(v.jobs) and v.job_id not in v.jobs for v in verdicts)
        doubles = sum(count for number, count in jobs.items() if number > 1)
        lines.append(f"{point:<38} {times:>4} {jobs[1]:>9} {jobs[0]:>4} {doubles:>7} {orphans:>7}")
        print(lines[-1] if len(lines) > 4 else "\n".join(lines), flush=True)
    lines += ["", f"wrong verdicts: {len(wrong)}", *map(str, wrong)]
    print("\n".join(lines[-len(wrong) - 2 :]))
    RESULT.write_text("\n".join(lines) + "\n")
    return 1 if wrong else 0


def _one(point: str) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="ptx-soak-") as folder:
        return killed_at(point, Path(folder), f"killed-{os.urandom(3).hex()}")


if __name__ == "__main__":
    sys.exit(main())
