"""What the sampler of a node costs: its CPU time against the wall time, of real runs.

    python benchmarks/samples.py [--seconds 120] [--folder DIR] [--write]

Each case is a real agent with real ranks and its sampler, which is the agent's own child: one node
of 2 ranks on CPU, and one of 8 ranks whose 8 GPUs are a stand-in's (the driver's own time is not in
it, and pynvml's is: it is put around the stand-in's answers as it is around the driver's). The CPU
time is read from /proc/PID/schedstat of the sampler before the ranks are let go.
Exit code 1 where it is 1 % of a core or more, after its start or with it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from measure import RESULTS, machine, machine_line
from support.node_run import NodeRun, until

from orchestrator.agent.archive import agent_archive
from orchestrator.metrics.samples import NAME, read

CHECKOUT = Path(__file__).resolve().parent.parent
GOAL = 0.01
RANK = """
import os, threading, time
for _ in range(8):  # as data workers and communication threads
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
held = bytearray(32 << 20)
print("ready", flush=True)
while not os.path.exists(os.environ["PTX_RUN_DIR"] + "/go"):
    time.sleep(0.5)
"""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    name: str
    wall: float
    """Seconds from its first sample to its last look."""
    cpu: float
    """Its CPU seconds in them."""
    start: float
    """CPU seconds before."""
    samples: int
    line: int
    """Bytes of a sample."""
    memory: int

    @property
    def share(self) -> float:
        return self.cpu / self.wall

    @property
    def with_start(self) -> float:
        return (self.cpu + self.start) / self.wall


def measured(name: str, root: Path, seconds: float, ranks: int, gpus: int) -> Cost:
    run = NodeRun(root, RANK, ranks=ranks, gpus_per_node=gpus)
    env = {}
    if gpus:
        with_stand_in(run.bundle / "agent.pyz")
        (root / "gpus.json").write_text(json.dumps([described(number) for number in range(gpus)]))
        visible = ",".join(map(str, range(gpus)))
        env = {"CUDA_VISIBLE_DEVICES": visible, "NVML_STAND_IN": str(root / "gpus.json")}
    try:
        run.start(**env)
        run.until_ready(ranks)
        path = run.node / NAME
        until(lambda: len(list(read(path))) > 0, "a sample", run.story)
        pid = sampler_below(run.agent.pid if run.agent else 0)
        start, begun = cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        cpu, wall = cpu_seconds(pid) - start, time.monotonic() - begun
        samples, memory = list(read(path)), peak_memory(pid)
        assert len(samples[-1]["ranks"]) == ranks and len(samples[-1]["gpus"]) == gpus
        line = path.stat().st_size // len(samples)
        (run.root / "go").touch()
        assert run.wait() == 0, run.story()
    finally:
        run.destroy()
    return Cost(name, wall, cpu, start, len(samples), line, memory)


def with_stand_in(archive: Path) -> None:
    """The stand-in driver in place of pynvml, in a bundle's agent.pyz; pynvml is compiled too, so
    that the start costs what it costs."""
    stand_in = (CHECKOUT / "tests" / "stand_ins" / "pynvml.py").read_bytes()
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as real, zipfile.ZipFile(archive, "w") as new:
        for name in real.namelist():
            if name != "pynvml.py":
                new.writestr(name, real.read(name))
        new.writestr("real_pynvml.py", real.read("pynvml.py"))
        new.writestr("pynvml.py", stand_in + b"\nimport real_pynvml\n")


def described(number: int) -> dict[str, object]:
    facts = {"used": 60 << 30, "total": 80 << 30, "utilisation": 97, "power": 651.2}
    facts |= {"temperature": 66, "ecc": 0, "clocks": 4, "xids": []}
    return {"uuid": f"GPU-{number:08x}-5eb9-4d29-a8b1-91b7b0b0c9a1", **facts}


def sampler_below(agent: int) -> int:
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
    return next(int(pid) for pid, name in names.items() if name == "ptx-sampler")


def cpu_seconds(pid: int) -> float:
    """From schedstat, in nanoseconds: stat counts ticks of 10 ms."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def peak_memory(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def report(costs: list[Cost], head: str) -> str:
    lines = [f"samples.py: {head}", ""]
    form = "{:<24} {:>7} {:>8} {:>12} {:>11} {:>11} {:>9} {:>8}"
    lines.append(
        form.format(
            "", "seconds", "samples", "CPU seconds", "of a core", "with start", "bytes", "MiB"
        )
    )
    lines += [form.format(*row(one)) for one in costs]
    week = max(one.line for one in costs) * 7 * 86400 / 5 / 2**20
    lines += [
        "",
        "CPU seconds: after the first sample. With start: and what Python and pynvml took before.",
        f"A week at 5 s would be {week:.0f} MiB; the file is thinned beyond 24 MiB.",
    ]
    return "\n".join(lines) + "\n"


def row(one: Cost) -> list[object]:
    times = f"{one.wall:.0f}", one.samples, f"{one.cpu:.3f}"
    shares = f"{one.share:.3%}", f"{one.with_start:.3%}"
    return [one.name, *times, *shares, one.line, f"{one.memory / 2**20:.0f}"]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=120.0)
    options.add_argument("--folder", type=Path)
    options.add_argument("--write", action="store_true", help="to results/samples.txt")
    chosen = options.parse_args()
    head = machine_line(machine(["nvidia-ml-py"]))
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        costs = [
            measured("2 ranks, CPU", Path(folder), chosen.seconds, 2, 0),
            measured("8 ranks, 8 GPUs", Path(folder), chosen.seconds, 8, 8),
        ]
    text = report(costs, head)
    print(text, end="")
    if chosen.write:
        (RESULTS / "samples.txt").write_text(text)
    return int(any(max(one.share, one.with_start) >= GOAL for one in costs))


if __name__ == "__main__":
    sys.exit(main())
