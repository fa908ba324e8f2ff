"""The sampler of a node, as the real agent starts it: what it writes, and that it holds up nobody.

The GPUs are a stand-in's, packed into agent.pyz in place of nvidia-ml-py.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.node_run import NodeRun, is_alive, parent_of, until

from orchestrator.agent.archive import agent_archive
from orchestrator.agent.sample_file import SampleFile
from orchestrator.metrics.samples import newest, read

STAND_IN = Path(__file__).parents[1] / "stand_ins" / "pynvml.py"
HOLD = "import time\nheld = bytearray(64 << 20)\nprint('ready', flush=True)\ntime.sleep(600)\n"
BRIEF = "import time\nprint('ready', flush=True)\ntime.sleep(1)\n"
GPUS: list[dict[str, Any] | None] = [
    {"uuid": "GPU-aaaa", "used": 7 << 30, "total": 80 << 30, "utilisation": 98, "power": 612.4}
    | {"temperature": 71, "ecc": 0, "clocks": 1 | 4, "xids": []},
    {"uuid": "GPU-bbbb", "utilisation": 41, "clocks": 8 | 64, "old_driver": True, "xids": [31, 79]},
]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[NodeRun]]:
    made: list[NodeRun] = []
    yield made
    for run in made:
        pid = sampler_of(run)
        run.destroy()
        if pid is not None and is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def started(runs: list[NodeRun], root: Path, rank: str, gpus: object = None) -> NodeRun:
    """A node of two ranks, with GPUs where they are described."""
    run = NodeRun(root, rank, gpus_per_node=0 if gpus is None else 2)
    runs.append(run)
    if gpus is None:
        return run.start()
    with_stand_in(run.bundle / "agent.pyz")
    (root / "gpus.json").write_text(json.dumps(gpus))
    return run.start(CUDA_VISIBLE_DEVICES="0,GPU-b", NVML_STAND_IN=str(root / "gpus.json"))


def with_stand_in(archive: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as real, zipfile.ZipFile(archive, "w") as new:
        assert b"nvmlDeviceGetHandleByUUID" in real.read("pynvml.py")
        for name in real.namelist():
            new.writestr(name, STAND_IN.read_bytes() if name == "pynvml.py" else real.read(name))


def sampler_of(run: NodeRun) -> int | None:
    """Its pid, found in /proc by its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[4:6] == ["sample", str(run.node)] and is_alive(int(entry.name)):
                return int(entry.name)
    return None


def samples(run: NodeRun) -> list[dict[str, Any]]:
    return list(read(run.node / "samples.jsonl"))


def test_a_sample_tells_of_node_ranks_and_gpus(runs: list[NodeRun], tmp_path: Path) -> None:
    run = started(runs, tmp_path, HOLD, GPUS)
    until(lambda: len(samples(run)) == 2, "two samples", run.story)
    first, second = samples(run)
    assert 3 < second["t"] - first["t"] < 120
    assert second["cpu"]["cores"] == len(os.sched_getaffinity(0)) or second["cpu"]["cores"] > 0
    assert 0 <= second["cpu"]["used"] <= os.cpu_count() + 0.5  # two clocks
    assert 0 < second["memory"]["used"] < second["memory"]["limit"]
    assert [row["rank"] for row in second["ranks"]] == [0, 1]
    assert all(64 << 20 < row["rss"] < 256 << 20 for row in second["ranks"])
    assert all(row["cpu"] < 0.5 for row in second["ranks"])
    one, two = second["gpus"]
    assert one == {
        "index": 0,
        "uuid": "GPU-aaaa",
        "util": 98,
        "memory_used": 7 << 30,
        "memory_total": 80 << 30,
        "power": 612.4,
        "temperature": 71,
        "throttle": ["sw_power_cap"],
        "ecc": 0,
        "xid": None,
        "ranks": [0],
    }
    assert two["throttle"] == ["hw_slowdown", "hw_thermal"]
    assert (two["index"], two["ranks"], two["xid"]) == (1, [1], 79)
    assert (two["power"], two["temperature"], two["ecc"]) == (None, None, None)
    assert stat.S_IMODE((run.node / "samples.jsonl").stat().st_mode) == 0o600
    assert newest(run.node / "samples.jsonl") == second


def test_a_lost_gpu_keeps_its_place(runs: list[NodeRun], tmp_path: Path) -> None:
    run = started(runs, tmp_path, HOLD, [None, GPUS[1]])
    until(lambda: samples(run), "a sample", run.story)
    one, two = samples(run)[0]["gpus"]
    assert (one["index"], one["uuid"], one["util"], one["throttle"]) == (0, None, None, [])
    assert two["uuid"] == "GPU-bbbb"


def test_a_driver_that_never_answers_holds_up_nobody(runs: list[NodeRun], tmp_path: Path) -> None:
    run = started(runs, tmp_path, BRIEF, [{"uuid": "GPU-a", "hangs": True}, GPUS[1]])
    until(lambda: sampler_of(run), "a sampler", run.story)
    pid = sampler_of(run)
    assert pid is not None
    assert run.wait() == 0
    assert not samples(run)  # it did hang
    assert not is_alive(pid)
    ended, records = run.ended(), run.records()
    assert ended["t"] - max(record["ended"] for record in records.values()) < 30  # not for ever
    assert (ended["reason"], ended["message"]) == ("completed", None)


def test_it_dies_with_its_agent(runs: list[NodeRun], tmp_path: Path) -> None:
    run = started(runs, tmp_path, HOLD)
    until(lambda: samples(run), "a sample", run.story)
    pid = sampler_of(run)
    assert pid is not None and run.agent is not None
    assert parent_of(pid) == run.agent.pid
    assert pid not in run.marked()  # it is none of the run's processes
    run.agent.kill()
    until(lambda: not is_alive(pid), "the end of the sampler")
    run.assert_nothing_left_soon()


def test_it_outlives_the_signals_of_a_step(runs: list[NodeRun], tmp_path: Path) -> None:
    run = started(runs, tmp_path, HOLD)
    until(lambda: samples(run), "a sample", run.story)
    pid = sampler_of(run)
    assert pid is not None and run.agent is not None
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    seen = len(samples(run))
    until(lambda: len(samples(run)) > seen, "another sample", run.story)
    run.agent.terminate()
    run.wait()
    assert not is_alive(pid)


def test_its_death_is_nothing_to_the_run(runs: list[NodeRun], tmp_path: Path) -> None:
    run = started(runs, tmp_path, "import time\nprint('ready', flush=True)\ntime.sleep(3)\n")
    until(lambda: sampler_of(run), "a sampler", run.story)
    os.kill(sampler_of(run) or 0, signal.SIGKILL)
    assert run.wait() == 0
    assert run.ended()["reason"] == "completed"


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_any_python_of_a_cluster_can_run_it(tmp_path: Path, version: str) -> None:
    python = installed(version)
    if python is None:
        pytest.skip(f"python{version} is not here")
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(agent_archive())
    argv = [python, "-I", "-S", str(archive), "sample", str(tmp_path), "600", "0.2", "1", "0"]
    with subprocess.Popen(argv) as process:
        until(lambda: len(list(read(tmp_path / "samples.jsonl"))) > 1, "two samples")
        process.kill()
    assert all(sample["gpus"] == [] for sample in read(tmp_path / "samples.jsonl"))


def installed(version: str) -> str | None:
    """An interpreter on PATH or among pyenv's that really is of this version."""
    found = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in [found, *map(str, pyenv.glob(f"{version}.*/bin/python3"))]:
        argv = [python or "false", "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
        if subprocess.run(argv, capture_output=True, text=True).stdout.strip() == version:
            return python
    return None


def test_a_long_run_keeps_the_newest_and_ever_fewer_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    file = SampleFile(path, 0o600, largest=20_000)
    for number in range(10_000):
        file.append(b'{"v":1,"t":%d,"x":"%s"}\n' % (number, b"x" * 40))
    assert path.stat().st_size <= 20_000
    times = [sample["t"] for sample in read(path)]
    assert times == sorted(times)
    assert times[0] == 0 and times[-1] == 9_999
    assert times[-100:] == list(range(9_900, 10_000))
    assert [name.name for name in tmp_path.iterdir()] == ["samples.jsonl"]


def test_torn_foreign_and_huge_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    whole = [b'{"v":1,"t":%d}' % number for number in range(4)]
    strange = [b"{", b"\xff\x00", b"[]", b'{"v":2,"t":1}', b'{"v":1,"t":"x"}', b"9" * (3 << 20)]
    path.write_bytes(
        b"\n".join([whole[0], *strange, *whole[1:3], b"[" * 100_000, whole[3], b'{"v"'])
    )
    assert [sample["t"] for sample in read(path)] == [0, 1, 2, 3]
    assert [sample["t"] for sample in read(path, since=2)] == [2, 3]
    assert newest(path) == {"v": 1, "t": 3}
    assert list(read(tmp_path / "none")) == [] and newest(tmp_path) is None
    assert list(read(tmp_path)) == []
