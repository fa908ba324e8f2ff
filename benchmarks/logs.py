"""How fast `ptx logs` merges, how soon `--follow` shows a line, and what both weigh.

    python benchmarks/logs.py [--repeat 5] [--seconds 20] [--folder DIR] [--undisturbed]

* 64 ranks of 10 MB, every line with a time of its own: the whole command against GNU `sort -m` on
  the same files, in turns; its peak memory, all its processes together. On a machine with other
  work two processes are no faster than one: --undisturbed (for root) runs both under chrt.
* 256 files of a live run: the time from the write of a line to its arrival at the reader of
  `ptx logs --follow`, one line at a time into a file drawn by chance, and the processor time.
* 1,024 ranks, with 64 descriptors allowed.

Kept in benchmarks/results/logs.txt and .json. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "cli"))

from logs_run import FakeRun, ptx
from measure import RESULTS, installed, machine, machine_line, save

from orchestrator.logs.line import stamp_of

ROOT = Path(__file__).resolve().parent.parent
RANKS, BYTES = 64, 10_000_000
FOLLOWED, PAUSE = 256, 0.05
MANY, DESCRIPTORS = 1024, 64
GOAL_RATIO, GOAL_LATENCY, GOAL_CORE = 1.0, 0.5, 0.10


def write_logs(run: FakeRun) -> list[Path]:
    chance, paths = random.Random(1), []  # noqa: S311 - test data
    for rank in range(RANKS):
        path = run.layout.rank_log(0, rank // 8, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.append(path)
        micro, size, lines = rank * 13, 0, []
        while size < BYTES:
            micro += chance.randrange(10_000, 30_000)
            lines.append(
                f"{stamp_of(run.began + micro / 1e6)} o step {len(lines)} | loss "
                f"{11 - len(lines) / 9e4:.5f} | lr 3.00e-04 | tokens/s 51234 {'#' * (micro % 41)}\n"
            )
            size += len(lines[-1])
        path.write_text("".join(lines))
    return paths


def timed(argv: list[str], **more: Any) -> tuple[float, float]:
    """Wall seconds, and processor seconds with those of all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, **more)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def peak_memory(argv: list[str]) -> float:
    """MiB: the highest resident memory of each process of the command, added up."""
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pids = [process.pid, *map(int, children.read_text().split() if children.exists() else [])]
        for pid in pids:
            peaks[pid] = max(peaks.get(pid, 0), resident_peak(pid))
        time.sleep(0.05)
    return sum(peaks.values()) / 1024


def resident_peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) if "VmHWM:" in status else 0


def merging(folder: Path, repeat: int, first: Sequence[str]) -> dict[str, Any]:
    """`first`: what both commands are started through."""
    run = FakeRun.create(folder, "merge-abc123")
    paths = write_logs(run)
    ours = [*first, *ptx("logs", run.layout.root)]
    sort = [*first, "sort", "-m", *map(str, paths)]
    plain = {**os.environ, "LC_ALL": "C"}
    env = installed(folder)
    pairs = [(timed(ours, env=env), timed(sort, env=plain)) for _ in range(repeat + 1)][1:]
    return {
        "ptx_seconds": statistics.median(pair[0][0] for pair in pairs),
        "sort_seconds": statistics.median(pair[1][0] for pair in pairs),
        "speed": statistics.median(pair[1][0] / pair[0][0] for pair in pairs),
        "ptx_cpu": statistics.median(pair[0][1] for pair in pairs),
        "sort_cpu": statistics.median(pair[1][1] for pair in pairs),
        "peak_mib": peak_memory(ours),
    }


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def following(folder: Path, seconds: float) -> dict[str, Any]:
    """Each line says when it was written; one rank in 256 writes at a time."""
    run = FakeRun.create(folder, "follow-abc123")
    run.start()
    logs = []
    for rank in range(FOLLOWED):
        path = run.layout.rank_log(0, rank // 8, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        logs.append(path.open("a", buffering=1))
    chance, latencies = random.Random(2), []  # noqa: S311 - test data
    process = subprocess.Popen(
        ptx("logs", run.layout.root, "--follow"), cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    # Until every file has rested for long: what follows is the time of a line out of silence.
    begun, next_write, data, used = time.time(), 0.0, b"", 0.0
    warm = begun + 8
    while time.time() < warm + seconds:
        now = time.time()
        if now >= next_write:
            next_write = now + PAUSE
            logs[chance.randrange(FOLLOWED)].write(f"{stamp_of(now)} o at {time.time():.6f}\n")
        if used == 0.0 and now > warm:
            used = processor_seconds(process.pid)
        if selector.select(0.005):
            arrived = time.time()
            data += os.read(process.stdout.fileno(), 1 << 16)
            *lines, data = data.split(b"\n")
            if arrived > warm:
                latencies += [arrived - float(line.split()[-1]) for line in lines]
    core = (processor_seconds(process.pid) - used) / seconds
    process.terminate()
    process.wait()
    latencies.sort()
    return {
        "lines": len(latencies),
        "median": statistics.median(latencies),
        "p99": latencies[int(len(latencies) * 0.99)],
        "most": latencies[-1],
        "core": core,
    }


def many(folder: Path) -> int:
    """Lines of as many ranks, shown and followed by a process with few descriptors."""
    run = FakeRun.create(folder, "many-abc123")
    run.start()
    for rank in range(MANY):
        path = run.layout.rank_log(0, rank // 8, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{stamp_of(run.began + rank / 1000)} o hello {rank}\n")
    run.end(0, 0)
    limited = ["bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "bash"]
    counts = []
    for options in ([], ["--follow"]):
        argv = [*limited, *ptx("logs", run.layout.root, *options)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
        counts.append(len(done.stdout.splitlines()))
    return min(counts)


def report(found: dict[str, Any]) -> str:
    merge, follow = found["merge"], found["follow"]
    return "\n".join(
        [
            machine_line(found["machine"]),
            "",
            f"merge of {RANKS} ranks x {BYTES / 1e6:.0f} MB, median of {found['repeat']} pairs"
            + ", undisturbed" * found["undisturbed"],
            f"  ptx logs   {merge['ptx_seconds']:6.2f} s   {merge['ptx_cpu']:6.2f} s processor, "
            f"peak {merge['peak_mib']:.0f} MiB in all its processes",
            f"  sort -m    {merge['sort_seconds']:6.2f} s   {merge['sort_cpu']:6.2f} s processor",
            f"  speed      {merge['speed']:6.2f} of sort's (goal {GOAL_RATIO})",
            f"follow of {FOLLOWED} files, {follow['lines']} lines out of silence",
            f"  latency    median {follow['median']:.3f} s, 99 % {follow['p99']:.3f} s, "
            f"most {follow['most']:.3f} s (goal: 99 % under {GOAL_LATENCY} s)",
            f"  processor  {follow['core']:.1%} of a core (goal {GOAL_CORE:.0%})",
            f"{MANY} ranks with {DESCRIPTORS} descriptors: {found['many']} lines",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--undisturbed", action="store_true", help="both merges under chrt --fifo")
    given = parser.parse_args()
    first = ("chrt", "--fifo", "1") if given.undisturbed else ()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        found: dict[str, Any] = {"machine": machine(()), "repeat": given.repeat}
        found["undisturbed"] = given.undisturbed
        found["merge"] = merging(folder, given.repeat, first)
        found["follow"] = following(folder, given.seconds)
        found["many"] = many(folder)
    table = report(found)
    print(table)
    save(table, found, RESULTS / "logs")
    reached = (
        found["merge"]["speed"] >= GOAL_RATIO
        and found["follow"]["p99"] < GOAL_LATENCY
        and found["follow"]["core"] < GOAL_CORE
        and found["many"] == MANY
    )
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
