"""How fast checkpoints are saved and loaded, and how long training stands still for one.

    python benchmarks/checkpoint.py [ROUNDS]

On CPU, with two processes over gloo, data parallel, with the state of AdamW. A round measures each
thing once, in turn forwards and backwards. A ratio is taken within a round; the figure is the
median over the rounds with its 95 % bootstrap interval. One round before them is not counted.

* save: from the call to the commit, hashing and fsync included, over writing the same bytes with
  fsync and nothing else.
* load: as a training resumes, hashing included, over reading the same bytes.
* stall: how long training stands still for a save in the background, over one that it waits for.
* DCP: the same of `torch.distributed.checkpoint`, `async_save` over `save`.

All files lie in a folder of --folder; bytes that were just written are read from memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import RESULTS, machine, machine_line, median_interval, save
from peers.checkpoint_rank import CheckpointTask

GOAL = 0.1
"""Of a save that training waits for: how long it may stand still for one in the background."""
Round = dict[str, float]
RATIOS: dict[str, tuple[str, Callable[[Round], float]]] = {
    "save": ("save / write and fsync", lambda one: one["sync"] / one["raw"]),
    "load": ("load / read", lambda one: one["load"] / one["read"]),
    "stall": ("stall: background / waiting", lambda one: one["async_stall"] / one["sync"]),
    "dcp_stall": ("the same of DCP", lambda one: one["dcp_async"] / one["dcp_sync"]),
    "dcp_save": ("save / DCP's save", lambda one: one["sync"] / one["dcp_sync"]),
    "stall_to_dcp": (
        "stall / DCP's async stall",
        lambda one: one["async_stall"] / one["dcp_async"],
    ),
    "slower": (
        "steps beside a save / alone",
        lambda one: (one["async_steps"] - one["async_stall"]) / one["steps"],
    ),
}


def launch(ranks: int, task: CheckpointTask) -> list[Round]:
    """Raises SystemExit with the ranks' output where they fail."""
    here = Path(__file__).resolve().parent
    out = Path(task.folder, "rounds.json")
    launcher = ("torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            *launcher,
            "-m",
            "peers.checkpoint_rank",
            out,
            json.dumps(asdict(task)),
        ],
        env=os.environ
        | {
            "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nthe ranks ended with {done.returncode}")
    found: list[Round] = json.loads(out.read_text())
    return found


def figures(rounds: list[Round]) -> dict[str, Any]:
    size = rounds[0]["bytes"]
    rates = {"sync": "save", "raw": "write and fsync", "load": "load", "read": "read"}
    ratios = {name: [ratio(one) for one in rounds] for name, (_, ratio) in RATIOS.items()}
    return {
        "bytes": size,
        "mb_per_s": {
            words: statistics.median(size / one[name] / 1e6 for one in rounds)
            for name, words in rates.items()
        },
        "stall_ms": statistics.median(one["async_stall"] * 1e3 for one in rounds),
        "dcp_stall_ms": statistics.median(one["dcp_async"] * 1e3 for one in rounds),
        "ratios": {name: [*median_interval(values)] for name, values in ratios.items()},
        "rounds": rounds,
    }


def table(found: dict[str, Any]) -> str:
    lines = [f"{words:16} {rate:8,.0f} MB/s" for words, rate in found["mb_per_s"].items()]
    lines.append(
        f"training stands still {found['stall_ms']:.0f} ms, with DCP {found['dcp_stall_ms']:.0f} ms"
    )
    for name, (words, _) in RATIOS.items():
        median, low, high = found["ratios"][name]
        lines.append(f"{words:28} {median:.3f} [{low:.3f}, {high:.3f}]")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rounds", nargs="?", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--dim", type=int, default=CheckpointTask.dim, help="width of the model")
    parser.add_argument("--layers", type=int, default=CheckpointTask.layers)
    parser.add_argument("--steps", type=int, default=CheckpointTask.steps, help="beside a save")
    parser.add_argument("--folder", type=Path, help="on the filesystem to measure")
    parser.add_argument("--check", action="store_true", help="exit code 1 beyond the stall's goal")
    parser.add_argument("--save", type=Path, default=RESULTS / "checkpoint", metavar="STEM")
    given = parser.parse_args()
    where = machine(("torch",))
    with tempfile.TemporaryDirectory(prefix="ptx-checkpoint-", dir=given.folder) as folder:
        task = CheckpointTask(folder, given.rounds, given.dim, given.layers, given.steps)
        found = figures(launch(given.ranks, task))
    head = (
        f"$ python benchmarks/checkpoint.py {' '.join(sys.argv[1:])}".rstrip()
        + f"\n{machine_line(where)}\n{given.rounds} rounds, {given.ranks} ranks, "
        + f"{found['bytes'] / 1e6:,.0f} MB a checkpoint"
    )
    text = f"{head}\n{table(found)}"
    print(text)
    save(text, {"machine": where, "ranks": given.ranks} | found, given.save)
    if given.check and found["ratios"]["stall"][0] > GOAL:
        print(f"training stands still longer than {GOAL:.0%} of a save that it waits for")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
