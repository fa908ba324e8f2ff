"""A full disk under rank logs that rotate, and under logs that are packed: nothing that was written
is lost, and what could not be written is counted and said."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.node_run import until
from support.shim_rank import Rank
from support.small_disk import fill, small_disk

from orchestrator.agent.compress import compress_logs
from orchestrator.agent.log_limits import PART
from orchestrator.agent.stamp import PREFIX_SIZE
from orchestrator.logs.discovery import number_of, parts
from orchestrator.logs.reader import LogReader

pytestmark = pytest.mark.mount

PHASE = 3000
WHOLE = re.compile(r"line (\d+) x{80}")
TALKING = f"""
import fcntl, pathlib, sys, termios, time
for phase in range(3):
    while not pathlib.Path(sys.argv[1], f"go-{{phase}}").exists():
        time.sleep(0.01)
    for i in range({PHASE}):
        print("line", phase * {PHASE} + i, "x" * 80)
    sys.stdout.flush()
    while any(fcntl.ioctl(1, termios.FIONREAD, bytes(4))):  # the shim has it, not the pipe
        time.sleep(0.01)
    pathlib.Path(sys.argv[1], f"said-{{phase}}").touch()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def lines_of(node: Path, rank: int) -> list[str]:
    reader, lines = LogReader(node / f"rank-{rank:05d}.log", 0), []
    while (more := reader.read()) is not None:
        lines += [entry[2][PREFIX_SIZE:] for entry in more]
    return lines


def test_a_log_that_rotates_onto_a_full_disk_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    rank = Rank(disk)
    rank.env[PART] = str(1 << 16)
    signs = tmp_path / "signs"
    signs.mkdir()
    process = rank.popen(sys.executable, "-c", TALKING, str(signs))

    def speak(phase: int) -> None:
        (signs / f"go-{phase}").touch()
        until((signs / f"said-{phase}").exists, f"phase {phase}")

    speak(0)
    until(lambda: lines_of(rank.node, 1)[-1:] == [f"line {PHASE - 1} {'x' * 80}"], "its lines")
    before = {path: path.read_bytes() for path in parts(rank.node, 1)}
    filler = fill(disk)
    speak(1)  # the rank is not made to wait
    assert process.stderr is not None
    told = process.stderr.readline().decode()
    assert "No space left on device" in told and "the rank goes on" in told
    filler.unlink()
    speak(2)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and b"cannot write" not in rest

    shown = lines_of(rank.node, 1)
    notices = [line for line in shown if line.startswith("ptx: ")]
    numbers = [int(found[1]) for line in shown if (found := WHOLE.fullmatch(line))]
    torn = len(shown) - len(numbers) - len(notices)
    assert 0 <= torn <= len(notices)
    assert numbers == sorted(set(numbers))
    assert set(numbers) >= {*range(PHASE), *range(2 * PHASE, 3 * PHASE)}
    lost = 3 * PHASE - len(numbers)
    assert PHASE // 2 < lost <= PHASE
    counts = [int(found) for line in notices for found in re.findall(r"(\d+) bytes of this", line)]
    assert sum(counts) == rank.record["lost_bytes"] > lost * 80
    files = parts(rank.node, 1)
    assert [number_of(path) for path in files] == list(range(len(files)))
    assert len(files) > len(before) > 1  # rotated before the disk was full, and again after
    for path, data in before.items():
        assert path.read_bytes().startswith(data)
    assert all(path.read_bytes().endswith(b"\n") for path in files if path.stat().st_size)
    assert rank.record["log_bytes"] == sum(path.stat().st_size for path in files)


def test_no_half_packed_log_takes_the_place_of_a_log(disk: Path) -> None:
    chance = random.Random(4)  # noqa: S311 - test data
    node = disk / "node-0000"
    node.mkdir()
    whole = {}
    for rank, size in enumerate((200_000, 3_000_000, 1000)):
        path = node / f"rank-{rank:05d}.log"
        path.write_bytes(chance.randbytes(size // 2).hex().encode() + b"\n")
        whole[rank] = path.read_bytes()
    filler = disk / "filler"
    filler.write_bytes(bytes(8_000_000 - sum(map(len, whole.values())) - 900_000))
    said = compress_logs(node, 0o600, lambda: True)
    assert said == "rank-00001.log cannot be compressed: No space left on device; it stays as it is"
    names = sorted(path.name for path in node.iterdir())
    assert names == ["rank-00000.log.gz", "rank-00001.log", "rank-00002.log.gz"]
    for rank, data in whole.items():
        assert lines_of(node, rank) == [data.decode().rstrip("\n")]
    filler.unlink()
    assert compress_logs(node, 0o600, lambda: True) is None
    assert sorted(path.suffix for path in node.iterdir()) == [".gz"] * 3
    assert {rank: f"{lines_of(node, rank)[0]}\n".encode() for rank in whole} == whole
