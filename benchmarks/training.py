"""ptx's training loop against a bare DDP loop, the Hugging Face Trainer and Lightning Fabric.

    pip install -c constraints.txt -e '.[train,bench]' && python benchmarks/training.py [PAIRS]

On CPU, with one process and with two over gloo. All train the same model on the same samples with
the same optimizer, batch and threads, and must end with the same held-out loss, else exit code 1.
All get the options of DistributedDataParallel that ptx takes here, as far as they have them.

A pair is one training by ptx and one by the other, side by side in the same processes, first and
second in turn (A B B A). A ratio is ptx's tokens/s over the other's within a pair: above 1, ptx is
faster. The figure is the median over the pairs with its 95 % bootstrap interval. Imports, the first
training of each and its first steps are not counted. Reports are: each makes one in ten steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import RESULTS, machine, machine_line, median_interval, save
from peers.task import Task

PEERS = {"bare": "bare DDP loop", "trainer": "Hugging Face Trainer", "fabric": "Lightning Fabric"}
PACKAGES = ("torch", "transformers", "accelerate", "lightning-fabric")
SAME_LOSS = 1e-3
"""Nats a byte: the contenders add the same numbers in another order."""

Pair = dict[str, Any]


def launch(ranks: int, task: Task, peers: list[str], pairs: int, threads: int) -> list[Pair]:
    """All pairs on so many ranks; raises SystemExit with their output where they fail."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="ptx-training-") as folder:
        out = Path(folder, "pairs.json")
        launcher = ("torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")
        wanted = (str(out), json.dumps(asdict(task)), ",".join(peers), str(pairs))
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "peers.rank", *wanted],
            env=os.environ
            | {
                "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
                "OMP_NUM_THREADS": str(threads),
                "CUDA_VISIBLE_DEVICES": "",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout}\nthe ranks ended with {done.returncode}")
        found: list[Pair] = json.loads(out.read_text())
        return found


def summary(ranks: int, task: Task, peer: str, pairs: list[Pair]) -> dict[str, Any]:
    """Of the pairs with one peer."""
    tokens = task.steps * task.micro_batch * task.context * ranks
    ratios = [pair["other"]["seconds"] / pair["ptx"]["seconds"] for pair in pairs]
    median, low, high = median_interval(ratios)
    return {
        "ranks": ranks,
        "peer": peer,
        "ptx_tokens_per_s": statistics.median(tokens / pair["ptx"]["seconds"] for pair in pairs),
        "peer_tokens_per_s": statistics.median(tokens / pair["other"]["seconds"] for pair in pairs),
        "ratio": median,
        "low": low,
        "high": high,
        "loss_difference": max(abs(pair["ptx"]["loss"] - pair["other"]["loss"]) for pair in pairs),
        "ratios": ratios,
    }


def table(summaries: list[dict[str, Any]]) -> str:
    lines = [f"{'ranks':>5}  {'against':22} {'ptx tok/s':>10} {'its tok/s':>10}  ptx / other"]
    lines += [
        f"{found['ranks']:5}  {PEERS[found['peer']]:22} {found['ptx_tokens_per_s']:10,.0f} "
        f"{found['peer_tokens_per_s']:10,.0f}  "
        f"{found['ratio']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        for found in summaries
    ]
    worst = max(found["loss_difference"] for found in summaries)
    lines.append(f"held-out losses of all contenders differ by at most {worst:.1e} nats a byte")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pairs", nargs="?", type=int, default=15)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--steps", type=int, default=Task.steps, help="timed, of one training")
    parser.add_argument("--warm-up", type=int, default=Task.warm_up)
    parser.add_argument("--dim", type=int, default=Task.dim, help="width of the model")
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--save", type=Path, default=RESULTS / "training", metavar="STEM")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    task = Task(steps=given.steps, warm_up=given.warm_up, dim=given.dim)
    where = machine(PACKAGES)
    summaries = []
    for ranks in given.ranks:
        pairs = launch(ranks, task, given.peers, given.pairs, given.threads)
        for peer in given.peers:
            own = [pair for pair in pairs if pair["peer"] == peer]
            summaries.append(summary(ranks, task, peer, own))
    head = (
        f"$ python benchmarks/training.py {' '.join(sys.argv[1:])}".rstrip()
        + f"\n{machine_line(where)}\n"
        + f"{given.pairs} pairs of {task.warm_up} + {task.steps} steps, "
        + f"{task.micro_batch} x {task.context} bytes and {given.threads} thread(s) a rank"
    )
    text = f"{head}\n{table(summaries)}"
    print(text)
    figures = {"machine": where, "task": asdict(task), "pairs": given.pairs, "figures": summaries}
    save(text, figures, given.save)
    if any(found["loss_difference"] > SAME_LOSS for found in summaries):
        print("the contenders have not trained the same thing: the figures mean nothing")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
