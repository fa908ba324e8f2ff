"""Llama 1B and 8B on one GPU: ptx against the Hugging Face Trainer with peft.

    pip install -c constraints.txt -e '.[train]' && python benchmarks/gpu.py

Real shapes, random weights and tokens; bf16, sequences of 4,096 tokens packed with documents that
do not see each other; whole or LoRA of rank 16 on all linear layers; clipping, no recomputation.
Each training is a process of its own; those of a case take turns (A B B A). tokens/s is of the
median step of all repetitions, after the warm-up, by the device's own clock.

MFU is tokens/s x model FLOPs a token / peak. FLOPs: whole 6 N + 12 x layers x width x sequence,
LoRA 4 N + 6 N_lora + the same, N without the input embedding. Peak: dense 16-bit from the maker's
data sheet, 989.5 TFLOP/s for H100 and H200 (SXM).

Exit code 2 without a GPU; --tiny runs every part on the CPU with a tiny Llama.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from measure import RESULTS, machine, machine_line, save
from peers.llama_case import Case

from orchestrator.training.flops import Peak, peak_of

CASES = {
    case.name: case
    for case in (
        Case("1b", lora=False, micro_batch=4),
        Case("1b", lora=True, micro_batch=4),
        Case("8b", lora=False, micro_batch=1),
        Case("8b", lora=True, micro_batch=2),
    )
}
TINY = {
    case.name: case
    for case in (
        Case(
            "tiny",
            lora=lora,
            micro_batch=2,
            context=256,
            warm_up=1,
            steps=2,
            compile=False,
            device="cpu",
        )
        for lora in (False, True)
    )
}
CONTENDERS = {"ptx": "peers.gpu_ptx", "trainer": "peers.gpu_trainer"}
PACKAGES = ("torch", "transformers", "accelerate", "peft", "flash-attn", "bitsandbytes")

Run = dict[str, Any]


def run(contender: str, case: Case) -> Run:
    """One training in its own process. Raises SystemExit with its output where it fails."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="ptx-gpu-") as folder:
        out = Path(folder, "run.json")
        wanted = (json.dumps(asdict(case)), str(out))
        done = subprocess.run(
            [sys.executable, "-m", CONTENDERS[contender], *wanted],
            env=os.environ
            | {
                "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
                "CUDA_VISIBLE_DEVICES": first_gpu() if case.device == "cuda" else "",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{contender}, {case.name}: ended with an error")
        found: Run = json.loads(out.read_text())
        return found


def first_gpu() -> str:
    """With several in sight the Trainer would spread one process over all of them."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def turns(contenders: list[str], repeat: int) -> list[str]:
    """A B B A A B ..."""
    return [
        contender
        for number in range(repeat)
        for contender in (contenders if number % 2 == 0 else contenders[::-1])
    ]


def summary(case: Case, contender: str, runs: list[Run], peak: Peak) -> dict[str, Any]:
    """Of all repetitions of one contender; `error` says why there are no figures."""
    found: dict[str, Any] = {"case": case.name, "contender": contender, **asdict(case)}
    errors = [one["error"] for one in runs if "error" in one]
    if errors:
        return found | {"error": errors[0]}
    seconds = [second for one in runs for second in one["step_seconds"]]
    rate = case.tokens / statistics.median(seconds)
    flops = runs[0]["flops_per_token"]
    return found | {
        "error": None,
        "tokens_per_s": rate,
        "slowest": case.tokens / max(seconds),
        "fastest": case.tokens / min(seconds),
        "mfu": None if peak.flops is None else rate * flops / peak.flops,
        "peak_memory_bytes": max(one["memory_bytes"] for one in runs),
        "runs": runs,
    }


def table(summaries: list[dict[str, Any]]) -> str:
    head = f"{'case':10} {'by':8} {'batch':>5} {'tokens/s':>9} {'MFU':>6} {'GiB':>6} {'loss':>7}"
    lines = [f"{head}  ptx / other  how"]
    rates = {(s["case"], s["contender"]): s.get("tokens_per_s") for s in summaries}
    for found in summaries:
        start = f"{found['case']:10} {found['contender']:8} {found['micro_batch']:5}"
        if found["error"]:
            lines.append(f"{start} {found['error']}")
            continue
        mfu = "-" if found["mfu"] is None else f"{found['mfu']:.1%}"
        own, other = rates.get((found["case"], "ptx")), found["tokens_per_s"]
        ratio = "" if found["contender"] == "ptx" or own is None else f"{own / other:.2f}"
        lines.append(
            f"{start} {other:9,.0f} {mfu:>6} {found['peak_memory_bytes'] / 2**30:6.1f} "
            f"{found['runs'][0]['loss']:7.4f}  {ratio:11}  {found['runs'][0]['how']}"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeat", type=int, default=2, help="trainings of each contender")
    parser.add_argument("--steps", type=int, help="timed, of one training")
    parser.add_argument("--warm-up", type=int)
    parser.add_argument("--batch", type=int, help="sequences a step, instead of each case's own")
    parser.add_argument("--precision", choices=("bf16", "bf16-mixed"))
    parser.add_argument("--optimizer", choices=("adamw", "adamw-8bit"))
    parser.add_argument("--no-compile", action="store_true", help="ptx without torch.compile")
    parser.add_argument("--peer-compile", action="store_true", help="the Trainer with it")
    parser.add_argument("--tiny", action="store_true", help="a tiny Llama on the CPU")
    parser.add_argument("--save", type=Path, metavar="STEM", help="default: in benchmarks/results")
    return parser.parse_args()


def cases(given: argparse.Namespace) -> list[Case]:
    """Those asked for, changed as asked for."""
    changes = {
        "steps": given.steps,
        "warm_up": given.warm_up,
        "micro_batch": given.batch,
        "precision": given.precision,
        "optimizer": given.optimizer,
        "compile": False if given.no_compile else None,
        "peer_compile": True if given.peer_compile else None,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    chosen = TINY.values() if given.tiny else (CASES[name] for name in given.cases)
    return [replace(case, **changes) for case in chosen]


def _peak_line(peak: Peak) -> str:
    if peak.flops is None:
        return f"no MFU: {peak.reason}"
    return f"peak {peak.flops / 1e12:,.1f} TFLOP/s ({peak.name})"


def main() -> int:
    given = arguments()
    if not given.tiny and not torch.cuda.is_available():
        print(
            "this benchmark needs a GPU, and PyTorch sees none; --tiny tries its parts on the CPU",
            file=sys.stderr,
        )
        return 2
    where = machine(PACKAGES)
    peak = peak_of(torch.device("cpu" if given.tiny else "cuda"), "bf16")
    summaries = []
    for case in cases(given):
        runs: dict[str, list[Run]] = {contender: [] for contender in given.contenders}
        for contender in turns(given.contenders, given.repeat):
            runs[contender].append(run(contender, case))
        summaries += [summary(case, name, found, peak) for name, found in runs.items()]
    text = "\n".join(
        (
            f"$ python benchmarks/gpu.py {' '.join(sys.argv[1:])}".rstrip(),
            machine_line(where),
            _peak_line(peak),
            table(summaries),
        )
    )
    print(text)
    figures = {"machine": where, "peak": asdict(peak), "figures": summaries}
    save(text, figures, given.save or RESULTS / ("gpu-tiny" if given.tiny else "gpu"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
