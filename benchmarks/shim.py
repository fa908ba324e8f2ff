"""How fast one rank's output goes through its shim, and what the shim weighs.

    python benchmarks/shim.py [--gigabytes 2] [--repeat 3] [--folder DIR]

The same producer writes the same lines once through the shim and once through `cat > file`, in
turns. Afterwards the log is read back: stripped of its stamps it must have the producer's
checksum, every line must be whole, in order and not earlier than the one before.
Exit code 1 where a goal is missed: 400 MB/s, 16 MiB, no line lost or split.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator.agent.archive import agent_archive
from orchestrator.agent.stamp import PREFIX_SIZE, STAMP_SIZE

GOAL_MB_PER_SECOND = 400
GOAL_MIB = 16

PRODUCER = """
import os, sys
lines = b"".join(
    b"step %06d | loss %.4f | lr 3.00e-04 | grad norm %.3f | tokens/s %d %s\\n"
    % (i, 11 - i / 9000, i % 7 / 3, 51234 + i % 977, b"#" * (i % 61))
    for i in range(9000)
)
times = int(sys.argv[1]) // len(lines)
for _ in range(times):
    view = memoryview(lines)
    while view:
        view = view[os.write(1, view):]
"""


def producer(size: int) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", PRODUCER, str(size)]


def through_shim(folder: Path, size: int) -> tuple[float, int]:
    """Seconds, and the most memory that the shim held, in KiB (its VmHWM)."""
    env = {**os.environ, "PTX_NODE_DIR": str(folder), "RANK": "0", "LOCAL_RANK": "0"}
    argv = [sys.executable, "-I", "-S", str(folder / "agent.pyz"), "shim", "--", *producer(size)]
    begun = time.perf_counter()
    shim = subprocess.Popen(argv, env=env)
    peak = 0
    while shim.poll() is None:
        peak = max(peak, high_water_mark(shim.pid))
        time.sleep(0.01)
    took = time.perf_counter() - begun
    if shim.returncode:
        raise SystemExit(f"the shim ended with {shim.returncode}")
    return took, peak


def high_water_mark(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) if "VmHWM:" in status else 0


def through_cat(path: Path, size: int) -> float:
    begun = time.perf_counter()
    with path.open("wb") as file:
        source = subprocess.Popen(producer(size), stdout=subprocess.PIPE)
        subprocess.run(["cat"], stdin=source.stdout, stdout=file, check=True)
        source.wait()
    return time.perf_counter() - begun


def verify(log: Path, plain: Path) -> int:
    """The number of lines. Raises SystemExit where one was lost, split or out of time order."""
    wanted, got = hashlib.blake2b(), hashlib.blake2b()
    with plain.open("rb") as file:
        while block := file.read(1 << 20):
            wanted.update(block)
    last, lines = b"", 0
    with log.open("rb") as file:
        for line in file:
            stamp, letter = line[:STAMP_SIZE], line[STAMP_SIZE + 1 : STAMP_SIZE + 2]
            if letter != b"o":
                raise SystemExit(f"line {lines + 1} was split: {line!r}")
            if stamp < last:
                raise SystemExit(f"line {lines + 1} goes back in time")
            last = stamp
            lines += 1
            got.update(line[PREFIX_SIZE:])
    if got.digest() != wanted.digest():
        raise SystemExit("the log is not what the rank wrote")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    given = parser.parse_args()
    size = int(given.gigabytes * 1e9)
    shim, cat, peaks, lines = [], [], [], 0
    for _ in range(given.repeat):
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            folder = Path(name)
            (folder / "agent.pyz").write_bytes(agent_archive())
            plain, log = folder / "plain", folder / "rank-00000.log"
            cat.append(through_cat(plain, size))
            bytes_sent = plain.stat().st_size
            took, peak = through_shim(folder, size)
            shim.append(took)
            peaks.append(peak)
            lines = verify(log, plain)
    rate = bytes_sent / 1e6 / statistics.median(shim)
    plain_rate = bytes_sent / 1e6 / statistics.median(cat)
    peak_mib = max(peaks) / 1024
    print(f"shim        {rate:7.0f} MB/s   median of {given.repeat} x {bytes_sent / 1e9:.2f} GB")
    print(f"cat > file  {plain_rate:7.0f} MB/s   shim / cat = {rate / plain_rate:.2f}")
    print(f"shim memory {peak_mib:7.1f} MiB    highest VmHWM")
    print(f"lines       {lines:7d}        none lost, none split, in time order")
    return 0 if rate >= GOAL_MB_PER_SECOND and peak_mib < GOAL_MIB else 1


if __name__ == "__main__":
    raise SystemExit(main())
