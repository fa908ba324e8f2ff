"""kill -9 at a hundred random moments during saves: does every resume load a whole checkpoint?

    python benchmarks/soak/kills_during_saves.py [KILLS] [--seed N]

Two ranks save at every step, in the background and not, in turn; all are killed; the next ones must
load what was committed last, bitwise as it was saved, and go on. Three rounds share an attempt, so
that a step whose save was cut off is saved again into the same folder; old checkpoints are pruned
all the while. It goes on until KILLS of the kills came while something was half done. Exit code 1
unless every start loaded what it must, and each kind of moment was hit.
`tests/training/test_saving.py` runs twelve rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import RESULTS, machine, machine_line, save

BATCH = 51
"""Rounds on one run folder; three share an attempt."""
MOMENTS = ("while writing", "while committing", "while pruning")
CHECKOUT = Path(__file__).resolve().parent.parent.parent


def rounds_of(count: int, seed: int) -> list[dict[str, Any]]:
    """Raises SystemExit with the output where the rounds do not come to their end."""
    with tempfile.TemporaryDirectory(prefix="ptx-kills-") as folder:
        script = CHECKOUT / "tests" / "support" / "kills_during_saves.py"
        done = subprocess.run(
            [sys.executable, str(script), folder, str(count), str(seed)],
            env=os.environ
            | {
                "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tests'}",
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nthe rounds ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def during(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in rounds if one["left"] in MOMENTS]


def table(rounds: list[dict[str, Any]]) -> str:
    lines = [f"{'saving':18} {'kill came':18} {'rounds':>6}  {'loaded whole':>12}"]
    for background in (True, False):
        own = [one for one in rounds if one["asynchronous"] == background]
        for left, count in sorted(Counter(one["left"] for one in own).items()):
            whole = sum(one["whole"] for one in own if one["left"] == left)
            saving = "in the background" if background else "standing still"
            lines.append(f"{saving:18} {left:18} {count:6}  {whole:12}")
    whole = sum(one["whole"] and one["killed"] for one in rounds)
    lines += [
        f"{len(during(rounds))} kills while something was half done",
        f"{sum(one['again'] for one in rounds)} saves of a step whose save was cut off before",
    ]
    lines.append(f"{whole} of {len(rounds)} starts loaded, whole, what was committed last")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kills", nargs="?", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=RESULTS / "kills_during_saves", metavar="STEM")
    given = parser.parse_args()
    where = machine(("torch",))
    rounds: list[dict[str, Any]] = []
    seed = given.seed
    while len(during(rounds)) < given.kills:
        rounds += rounds_of(BATCH, seed)
        seed += 1
    command = " ".join(sys.argv[1:])
    head = f"$ python benchmarks/soak/kills_during_saves.py {command}".rstrip()
    text = f"{head}\n{machine_line(where)}\n{table(rounds)}"
    print(text)
    save(text, {"machine": where, "seed": given.seed, "rounds": rounds}, given.save)
    right = all(one["whole"] and one["killed"] for one in rounds)
    hit = {one["left"] for one in rounds}.issuperset(MOMENTS) and any(r["again"] for r in rounds)
    return 0 if right and hit else 1


if __name__ == "__main__":
    raise SystemExit(main())
