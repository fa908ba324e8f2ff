"""Start-up of ptx against torchx, interleaved in one run: medians and ratios.

    pip install -c constraints.txt -e '.[bench]' && python benchmarks/startup.py [ROUNDS]

Each round runs every command once, in turn, so that a busy moment of the machine hits all of
them alike. Prints seconds (median over the rounds) and each against torchx's in the same run.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure import installed

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
RUNS = 100
LARGE = ("--nodes", "1024", "--gpus", "8", "--launcher", "deepspeed")
ROOT = Path(__file__).resolve().parent.parent


def tool(name: str) -> str:
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not installed here: pip install -c constraints.txt -e '.[bench]'")
    return path


def make_runs(ptx: str, environment: dict[str, str], work: Path) -> None:
    """RUNS finished runs, copied from one that really ran."""
    spec = work / "true.yaml"
    spec.write_text(
        "name: bench\nentrypoint: {command: ['true']}\n"
        "resources: {gpus_per_node: 0, procs_per_node: 1}\n"
    )
    subprocess.run(
        [ptx, "submit", str(spec), "--follow"], env=environment, check=True, capture_output=True
    )
    root = Path(environment["PTX_RUNS"])
    (first,) = root.iterdir()
    record = (first / "run.json").read_text()
    for number in range(1, RUNS):
        copy = root / f"bench-{number:06d}"
        shutil.copytree(first, copy)
        (copy / "run.json").write_text(record.replace(first.name, copy.name))


def slurm_pair(torchx: str, launch: list[str]) -> dict[str, list[str]]:
    """torchx's dry run for SLURM, the very thing that ptx's does here, asks SLURM's tools."""
    if shutil.which("sinfo") is None:
        return {}
    return {"torchx run --dryrun, slurm": [torchx, "run", "-s", "slurm", "--dryrun", *launch]}


def once(argv: list[str], environment: dict[str, str], cwd: Path) -> float:
    started = time.perf_counter()
    subprocess.run(argv, env=environment, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    ptx, torchx = tool("ptx"), tool("torchx")
    with tempfile.TemporaryDirectory(prefix="ptx-startup-") as folder:
        work = Path(folder)
        # A checkout compiles itself at first use, as pip did for torchx at install.
        environment = installed(work) | {
            "PTX_RUNS": str(work / "runs"),
            "XDG_STATE_HOME": str(work / "state"),
            "XDG_CONFIG_HOME": str(work / "config"),
        }
        make_runs(ptx, environment, work)
        (work / "main.py").write_text("print('hello')\n")
        spec = str(ROOT / "jobs" / "llama_lora_zero3.yaml")
        launch = ["dist.ddp", "-j", "2x8", "--script", "main.py"]
        commands = {
            "ptx --help": [ptx, "--help"],
            "ptx validate": [ptx, "validate", spec],
            "ptx submit --dry-run": [ptx, "submit", spec, "--nodes", "2", "--dry-run"],
            "  of 1,024 nodes x 8 ranks": [ptx, "submit", spec, *LARGE, "--dry-run"],
            f"ptx status ({RUNS} runs)": [ptx, "status"],
            "torchx --help": [torchx, "--help"],
            "torchx run --dryrun": [torchx, "run", "-s", "local_cwd", "--dryrun", *launch],
            **slurm_pair(torchx, launch),
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for round_ in range(ROUNDS + 1):
            for name, argv in commands.items():
                took = once(argv, environment, work)
                if round_:  # the first round only fills the caches
                    seconds[name].append(took)
    report(seconds)


def report(seconds: dict[str, list[float]]) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{ROUNDS} interleaved rounds, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"{'command':26} {'median':>8} {'min':>8} {'max':>8}  against torchx")
    for name, values in seconds.items():
        pair = "torchx --help" if name.endswith("--help") else "torchx run --dryrun"
        ratio = "" if name.startswith("python") else f"{median[name] / median[pair]:.2f} of {pair}"
        print(f"{name:26} {median[name]:7.3f}s {min(values):7.3f}s {max(values):7.3f}s  {ratio}")


if __name__ == "__main__":
    main()
