"""Logs that rotate, are capped and packed: every reader sees one log."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.agent.compress import compress_logs
from orchestrator.agent.log_limits import Limits, limits_environment, limits_from, limits_of
from orchestrator.agent.rank_log import RankLog
from orchestrator.agent.stamp import Clock, Stamper
from orchestrator.logs.discovery import number_of, parts
from orchestrator.logs.line import STAMP, TEXT, stamp_of
from orchestrator.logs.position import Position
from orchestrator.logs.raw import RawLog
from orchestrator.logs.reader import LogReader
from orchestrator.logs.seek import offset_of_last, offset_since
from orchestrator.logs.stored import Stored
from orchestrator.spec.checks.finding import Context
from orchestrator.spec.checks.logs import cap_holds_parts
from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import kibibytes

START = 1_795_000_000


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node-0000"
    folder.mkdir()
    return folder


def write(node: Path, count: int, limits: Limits = Limits(), rank: int = 0) -> list[str]:  # noqa: B008 - a tuple
    """One line a second; what was written."""
    log = RankLog(str(node / f"rank-{rank:05d}.log"), 0o600, limits)
    lines = [f"{stamp_of(START + i)} {'oe'[i % 2]} {i} {'x' * (i % 50)}" for i in range(count)]
    for line in lines:
        log.write([f"{line}\n".encode()])
    log.close()
    return lines


def read(node: Path, start: Position = Position(), size: int = 3000) -> list[str]:  # noqa: B008
    reader, lines = LogReader(node / "rank-00000.log", 0, start), []
    while (more := reader.read(size)) is not None:
        lines += [entry[2] for entry in more]
    return lines + [entry[2] for entry in reader.finish()]


def pack(node: Path) -> None:
    assert compress_logs(node, 0o600, lambda: True) is None
    assert not list(node.glob("*.log")) and not list(node.glob("*.half"))


def test_a_log_that_rotates_reads_as_one(node: Path) -> None:
    lines = write(node, 900, Limits(part=4000))
    there = parts(node, 0)
    assert [number_of(path) for path in there] == list(range(len(there))) and len(there) > 8
    assert all(path.stat().st_size < 4100 for path in there)
    assert read(node) == lines


def test_the_cap_keeps_the_first_part_and_the_newest_ones_and_says_what_went(node: Path) -> None:
    lines = write(node, 3000, Limits(part=4000, most=20_000))
    there = parts(node, 0)
    assert sum(path.stat().st_size for path in there) <= 20_000
    numbers = [number_of(path) for path in there]
    assert numbers[0] == 0 and len(numbers) >= 3
    assert numbers[1:] == list(range(numbers[1], numbers[-1] + 1))
    shown = read(node)
    notice = [line for line in shown if line[STAMP + 1] == "?"]
    assert [line[TEXT:] for line in notice] == [
        f"ptx: part 1 to {numbers[1] - 1} of this log was dropped (logging.max)"
    ]
    at = shown.index(notice[0])
    assert shown[:at] == lines[:at] and shown[at + 1 :] == lines[-len(shown) + at + 1 :]


def test_a_cap_of_three_parts_keeps_what_came_last_also_where_a_part_has_just_begun(
    node: Path,
) -> None:
    log = RankLog(str(node / "rank-00000.log"), 0o600, Limits(part=4000, most=12_000))
    for number in range(2000):
        log.write([f"{stamp_of(START + number)} o {number}\n".encode()])
        first, *newest = (path.stat().st_size for path in parts(node, 0))
        assert first + sum(newest) <= 12_000
        assert number < 300 or sum(newest) > 3_000
    log.close()
    assert log.dropped_bytes > 0


def until_part(reader: LogReader, part: int, size: int) -> list[str]:
    """Read until it stands within that part."""
    lines: list[str] = []
    while (reader.part, bool(reader.offset)) != (part, True):
        lines += [entry[2] for entry in reader.read(size) or ()]
    return lines


def rest_of(reader: LogReader) -> list[str]:
    lines: list[str] = []
    while (more := reader.read()) is not None:
        lines += [entry[2] for entry in more]
    return lines


def test_a_part_that_the_cap_takes_while_it_is_read_is_told_from_there_on(node: Path) -> None:
    lines = write(node, 900, Limits(part=4000))
    there = parts(node, 0)
    reader = LogReader(there[0], 0)
    got = until_part(reader, 1, 1000)
    there[1].unlink()
    missing, *later = rest_of(reader)
    assert missing[TEXT:] == "ptx: part 1 of this log was dropped from here on (logging.max)"
    assert got == lines[: len(got)] and later == lines[-len(later) :]
    assert later[0] == there[2].read_text().splitlines()[0]

    reader = LogReader(there[0], 0)
    got = until_part(reader, 2, 1000)
    for path in there[2:-2]:
        path.unlink()
    missing, *later = rest_of(reader)
    last = number_of(there[-3])
    assert missing[TEXT:] == (
        f"ptx: part 2 to {last} of this log was dropped from here on (logging.max)"
    )
    assert later[0] == there[-2].read_text().splitlines()[0] and later[-1] == lines[-1]


def test_a_part_that_was_read_whole_is_not_told_to_be_dropped(node: Path) -> None:
    lines = write(node, 900, Limits(part=4000))
    there = parts(node, 0)
    reader = LogReader(there[0], 0)
    got = until_part(reader, 1, 9000)
    there[1].unlink()
    assert got + rest_of(reader) == lines


def test_a_reader_whom_the_cap_has_outrun_goes_on_with_what_is_there(node: Path) -> None:
    write(node, 300, Limits(part=4000))
    old = parts(node, 0)
    reader = LogReader(old[0], 0)
    until_part(reader, number_of(old[-1]), 1000)
    lines = write(node, 900, Limits(part=4000))
    for path in old[1:]:
        path.unlink()
    missing, *later = rest_of(reader)
    assert "was dropped from here on" in missing
    texts = [line[TEXT:] for line in lines]
    assert [line[TEXT:] for line in later] == texts[-len(later) :]
    assert later[0][TEXT:] == parts(node, 0)[1].read_text().splitlines()[0][TEXT:]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_slow_reader_misses_is_told_where_it_is_missing(node: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - test data
    log = RankLog(str(node / "rank-00000.log"), 0o600, Limits(part=2000, most=8000))
    reader, shown = LogReader(node / "rank-00000.log", 0), []
    for number in range(6000):
        log.write([f"{stamp_of(START + number)} o {number}\n".encode()])
        if chance.random() < 0.02:
            for path in parts(node, 0):
                reader.announce(number_of(path))
            for _ in range(chance.randrange(4)):
                shown += reader.read(chance.choice((300, 1000, 5000))) or []
    log.close()
    for path in parts(node, 0):
        reader.announce(number_of(path))
    texts = [entry[2][TEXT:] for entry in shown] + [line[TEXT:] for line in rest_of(reader)]
    assert log.dropped_bytes > 0 and texts[0] == "0" and texts[-1] == "5999"
    told = False
    last = -1
    for text in texts:
        if text.startswith("ptx: "):
            told = True
            continue
        assert told or int(text) == last + 1
        last, told = int(text), False


def test_a_shim_that_starts_again_goes_on_in_the_newest_part(node: Path) -> None:
    first = write(node, 300, Limits(part=4000))
    newest = parts(node, 0)[-1]
    size = newest.stat().st_size
    second = write(node, 3, Limits(part=4000))
    assert newest.stat().st_size > size
    assert len(read(node)) == len(first) + len(second)


@pytest.mark.parametrize("packed", [False, True])
def test_the_last_lines_and_a_time_are_found_over_parts(node: Path, packed: bool) -> None:
    lines = write(node, 900, Limits(part=4000))
    if packed:
        pack(node)
    first = node / "rank-00000.log"
    for count in (0, 1, 70, 500, 899, 5000):
        assert read(node, offset_of_last(first, count)) == lines[-count:] if count else True
    for second in (0, 1, 450, 899):
        stamp = stamp_of(START + second)
        found = read(node, offset_since(first, stamp))
        assert [line for line in found if line[:STAMP] >= stamp] == lines[second:]
        assert len(found) <= len(lines) - second + 200


def test_packed_logs_are_plain_gzip_and_read_the_same(node: Path) -> None:
    lines = write(node, 60_000)
    pack(node)
    (path,) = parts(node, 0)
    assert path.name == "rank-00000.log.gz" and path.stat().st_mode & 0o777 == 0o600
    assert gzip.decompress(path.read_bytes()).decode().splitlines() == lines
    assert read(node, size=100_000) == lines


def test_any_piece_of_a_packed_log_is_what_it_was(node: Path) -> None:
    data = random.Random(3).randbytes(3 << 20).replace(b"\x0a", b"ab") + b"\n" + b"x\n" * 9  # noqa: S311
    (node / "rank-00000.log").write_bytes(data)
    foreign = node / "rank-00001.log.gz"
    foreign.write_bytes(gzip.compress(data[: 1 << 20]) + gzip.compress(data[1 << 20 :]))
    (node / "rank-00001.log").unlink(missing_ok=True)
    assert compress_logs(node, 0o600, lambda: True) is None
    chance = random.Random(5)  # noqa: S311
    for rank in (0, 1):
        file = Stored(node / f"rank-{rank:05d}.log")
        assert file.size() == len(data)
        for _ in range(30):
            at, size = chance.randrange(len(data)), chance.randrange(1, 300_000)
            assert file.pread(size, at) == data[at : at + size]
        assert file.pread(10, len(data)) == b""


def test_a_log_whose_disk_complains_at_the_close_goes_on(node: Path) -> None:
    log = RankLog(str(node / "rank-00000.log"), 0o600)
    log.write([f"{stamp_of(START)} o one\n".encode()])
    mine = str(node / "rank-00000.log")
    links = {entry.name: entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    (number,) = [int(name) for name, link in links.items() if os.path.realpath(link) == mine]
    os.close(number)  # so that closing it is an error
    log.close()
    log.write([f"{stamp_of(START)} o two\n".encode()])
    log.close()
    assert [line[-3:] for line in read(node)] == ["one", "two"]
    assert log.lost_bytes == 0


def test_a_run_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    assert "No such file" in (compress_logs(tmp_path / "gone", 0o600, lambda: True) or "")


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 4000), flip=st.integers(0, 4000), foreign=st.booleans())
def test_a_damaged_packed_log_is_read_as_far_as_it_goes_and_says_so(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, foreign: bool
) -> None:
    node = tmp_path_factory.mktemp("damaged")
    lines = write(node, 400)
    plain = (node / "rank-00000.log").read_bytes()
    pack(node)
    path = node / "rank-00000.log.gz"
    data = bytearray(gzip.compress(plain) if foreign else path.read_bytes())
    if flip < len(data):
        data[flip] ^= 0xFF
    path.write_bytes(data[:cut])
    shown = read(node)
    assert len(shown) <= len(lines) + 50
    assert Stored(path).size() is not None


def test_a_log_being_packed_while_it_is_read_loses_nothing(node: Path) -> None:
    lines = write(node, 5000)
    reader = LogReader(node / "rank-00000.log", 0)
    got = [entry[2] for entry in reader.read(4096) or []]
    pack(node)
    while (more := reader.read(4096)) is not None:
        got += [entry[2] for entry in more]
    assert got == lines


def test_packing_that_is_told_to_end_leaves_whole_logs(node: Path) -> None:
    lines = write(node, 200_000)
    assert compress_logs(node, 0o600, lambda: False) is None
    assert read(node, size=1 << 20) == lines and not list(node.glob("*.half"))


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(st.tuples(st.sampled_from("oe"), st.binary(max_size=90)), max_size=60),
    part=st.integers(30, 900),
)
def test_raw_gives_the_bytes_of_both_streams_as_they_came(
    tmp_path_factory: pytest.TempPathFactory, data: list[tuple[str, bytes]], part: int
) -> None:
    """Each write flushed at once, so the order between the streams is that of the writes."""
    node = tmp_path_factory.mktemp("raw")
    log, clock = RankLog(str(node / "rank-00000.log"), 0o600, Limits(part=part)), Clock()
    for tag, piece in data:
        stamper = Stamper(tag.encode())
        log.write(stamper.feed(piece, clock.stamp()))
        log.write(stamper.flush(clock.stamp()))
    log.close()
    raw = RawLog(node / "rank-00000.log", 0)
    assert b"".join(raw.read()) + raw.finish() == b"".join(piece for _, piece in data)


def test_limits_are_what_the_spec_says() -> None:
    assert limits_of({"rotate": None, "max": None}) == Limits()
    assert limits_of({"rotate": "2MB"}) == Limits(2 << 20, None)
    assert limits_of({"max": "80MB"}) == Limits(10 << 20, 80 << 20)
    assert limits_of({"rotate": "1GB", "max": "3MB"}) == Limits(1 << 20, 3 << 20)
    for logging in ({}, {"rotate": "1GB"}, {"max": "1GB"}, {"rotate": "1MB", "max": "1GB"}):
        assert limits_from(limits_environment(logging)) == limits_of(logging)


@pytest.mark.parametrize("rotate", [None, "32KB", "64KB", "700KB", "1MB", "1GB"])
@pytest.mark.parametrize("most", [None, "100KB", "192KB", "2MB", "2100KB", "3GB"])
def test_validate_refuses_what_the_agent_would_change(rotate: str | None, most: str | None) -> None:
    sizes = {name: size for name, size in (("rotate", rotate), ("max", most)) if size}
    spec = JobSpec.model_validate({"name": "a", "entrypoint": {"module": "m"}, "logging": sizes})
    given = kibibytes(rotate) << 10 if rotate else None
    limits = limits_of(sizes)
    kept = rotate is None or limits.part == given
    holds = limits.most is None or limits.most >= 3 * (limits.part or 0)
    refused = list(cap_holds_parts(spec, Context(Path(), Path())))
    assert (kept and holds) == (not refused)
