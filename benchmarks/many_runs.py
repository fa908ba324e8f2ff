"""`ptx status` with ten thousand runs, two thousand of them live on SLURM.

    python benchmarks/many_runs.py [RUNS] [LIVE]

`run_folders.py` makes the runs. The live ones' states come from the commands of `slurm_stand_in.py`
on PATH, which note each call. Nothing real can be cold here: the page cache cannot be dropped
without harming the other work of a machine, so "cold" means that ptx's index was deleted.

Each round runs every command once, in turn. Figures are medians over the rounds, and the least of
them, to which the other work of the machine has added least; beside them what `ptx --version` takes
in the same rounds, and the part that is not start-up. Memory is the peak of the largest process.
Exit code 1 where memory or the number of questions is beyond its goal; times are the machine's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import RESULTS, installed, machine, machine_line, save
from run_folders import cases, make
from slurm_stand_in import stand_in_slurm
from timed_command import Ran, run

GOALS = {"warm": 0.3, "cold": 1.0, "memory": 200.0}
START = "start-up (--version)"
COLD, WARM = "cold, on a terminal", "warm, on a terminal"


def measure(folder: Path, rounds: int, calls: Path) -> dict[str, dict[str, float]]:
    ptx = shutil.which("ptx") or sys.exit("ptx is not installed here")
    env = {
        **installed(folder),
        "PTX_RUNS": str(folder / "runs"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PATH": f"{calls.parent}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "COLUMNS": "120",
        "LINES": "40",
    }
    index = folder / "state" / "ptx" / "index"
    commands: dict[str, tuple[list[str], bool]] = {
        START: (["--version"], False),
        COLD: (["status"], True),
        WARM: (["status"], True),
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
            "least_seconds": min(one.seconds for one in ran),
            "cpu_seconds": statistics.median(one.cpu for one in ran),
            "memory_mib": max(one.memory for one in ran),
            "squeue": max(words.count("squeue") for words in asked[name]),
            "sacct": max(words.count("sacct") for words in asked[name]),
            "bytes": len(ran[-1].out),
        }
        for name, ran in seen.items()
    }


def table(found: dict[str, dict[str, float]], live: int) -> str:
    start = found[START]["seconds"]
    names = ("seconds", "least", "less start", "CPU", "MiB", "squeue", "sacct")
    lines = [f"{'':24}" + "".join(f"{name:>11}" for name in names)]
    for name, one in found.items():
        times = (one["seconds"], one["least_seconds"], one["seconds"] - start, one["cpu_seconds"])
        counts = (one["memory_mib"], one["squeue"], one["sacct"])
        cells = [f"{value:11.3f}" for value in times] + [f"{value:11.0f}" for value in counts]
        lines.append(f"{name:24}{''.join(cells)}")
    largest = max(one["memory_mib"] for one in found.values())
    squeue, sacct = (max(one[name] for one in found.values()) for name in ("squeue", "sacct"))
    lines += [
        "",
        f"warm {found[WARM]['seconds']:.3f} s (goal {GOALS['warm']} s), "
        f"cold {found[COLD]['seconds']:.3f} s (goal {GOALS['cold']} s), "
        f"memory {largest:.0f} MiB (goal {GOALS['memory']:.0f} MiB),",
        f"squeue {squeue:.0f} (goal 1), sacct {sacct:.0f} (goal {-(-live // 500)})",
    ]
    return "\n".join(lines)


def within_goals(found: dict[str, dict[str, float]], live: int) -> bool:
    """Whatever the machine."""
    most = {name: max(one[name] for one in found.values()) for name in ("squeue", "sacct")}
    memory = max(one["memory_mib"] for one in found.values())
    return most["squeue"] <= 1 and most["sacct"] <= -(-live // 500) and memory <= GOALS["memory"]


def main() -> int:
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
    text = f"{head}\n\n{table(found, chosen.live)}"
    print(text)
    save(text, {"machine": before, "found": found, "goals": GOALS}, chosen.out)
    return 0 if within_goals(found, chosen.live) else 1


if __name__ == "__main__":
    raise SystemExit(main())
