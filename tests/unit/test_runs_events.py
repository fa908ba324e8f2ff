"""Reading and writing the events of a run."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path

import pytest

from orchestrator.agent import attempts
from orchestrator.agent.events import Events
from orchestrator.runs.events import ClientEvents, EventReader, read_events, read_together
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import read_exit, read_heartbeat, read_last_metrics


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    run = RunLayout(tmp_path / "r-aaaaaa")
    run.events.mkdir(parents=True, mode=0o700)
    return run


def line(t: float, kind: str, **fields: object) -> bytes:
    return json.dumps({"v": 1, "t": t, "type": kind, **fields}).encode() + b"\n"


def test_events_of_all_writers_come_in_time_order(layout: RunLayout) -> None:
    (layout.events / "job.jsonl").write_bytes(line(2, "job_started") + line(4, "x"))
    (layout.events / "client-a-1-f.jsonl").write_bytes(line(1, "intent") + line(3, "cancel"))
    assert [event.type for event in read_events(layout)] == ["intent", "job_started", "cancel", "x"]


def test_a_line_that_is_still_being_written_is_left_for_later(layout: RunLayout) -> None:
    whole = line(1, "intent") + line(2, "submitted", job_id="12")
    path = layout.events / "job.jsonl"
    first = len(line(1, "intent"))
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        expected = (length >= first) + (length == len(whole))
        assert len(read_events(layout)) == expected


@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"\0\0\0\0\n",
        b"not json\n",
        b"[1, 2]\n",
        b'"text"\n',
        b'{"v": 2, "t": 1, "type": "intent"}\n',
        b'{"v": 1, "type": "intent"}\n',
        b'{"v": 1, "t": "now", "type": "intent"}\n',
        b'{"v": 1, "t": NaN, "type": "intent"}\n',
        b'{"v": 1, "t": 1, "type": null}\n',
        b"\xff\xfe\n",
        b"[" * 50_000 + b"\n",
    ],
)
def test_a_corrupt_line_hides_no_other(layout: RunLayout, junk: bytes) -> None:
    (layout.events / "job.jsonl").write_bytes(line(1, "a") + junk + line(2, "b"))
    assert [event.type for event in read_events(layout)] == ["a", "b"]


def test_a_missing_folder_and_foreign_files_are_no_events(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "gone")
    assert read_events(layout) == []
    layout.events.mkdir(parents=True)
    (layout.events / "notes.txt").write_bytes(line(1, "intent"))
    (layout.events / "folder.jsonl").mkdir()
    (layout.events / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    assert read_events(layout) == []


def test_what_a_client_writes_is_read_back(layout: RunLayout) -> None:
    writer = ClientEvents(layout)
    writer.append("intent", scheduler="slurm")
    writer.append("submitted", job_id="12", note="\udcff é")
    events = read_events(layout)
    assert [event.type for event in events] == ["intent", "submitted"]
    assert events[1].text("job_id") == "12"
    (path,) = layout.events.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_a_line_that_an_earlier_process_has_left_takes_no_event_with_it(
    layout: RunLayout,
) -> None:
    path = layout.events / "job.jsonl"
    path.write_bytes(line(1, "a") + line(2, "b")[:-5])
    supervisor = Events(path, 0o600)
    supervisor.append("c")
    supervisor.append("d")
    assert [event.type for event in read_events(layout)] == ["a", "c", "d"]
    assert [event["type"] for event in attempts.read_events(path)] == ["a", "c", "d"]


def test_in_a_groups_folder_the_group_may_read_on(layout: RunLayout) -> None:
    layout.events.chmod(0o2770)
    ClientEvents(layout).append("cancel", user="ann")
    (path,) = layout.events.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def _cancel(root: str) -> None:
    ClientEvents(RunLayout(Path(root))).append("cancel", user="ann")


def test_clients_never_write_to_the_same_file(layout: RunLayout) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_cancel, args=(str(layout.root),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(list(layout.events.iterdir())) == 4
    assert len(read_events(layout)) == 4


def test_torn_records_of_a_node_are_absent_ones(layout: RunLayout) -> None:
    node = layout.node(0, 0)
    assert read_exit(layout, 0, 0, 0) is None
    assert read_heartbeat(layout, 0, 0) is None
    assert read_last_metrics(layout, 0) is None
    node.mkdir(parents=True)
    layout.exit_record(0, 0, 0).write_bytes(b'{"v": 1, "exit')
    (node / "heartbeat").write_bytes(b'{"t": 17')
    layout.metrics(0).write_bytes(b'{"v": 1, "step": 1}\n\0\0\n{"v": 1, "st')
    assert read_exit(layout, 0, 0, 0) is None
    assert read_heartbeat(layout, 0, 0) is None
    assert read_last_metrics(layout, 0) == {"v": 1, "step": 1}


def test_an_exit_record_is_read_with_its_exception(layout: RunLayout) -> None:
    layout.node(0, 1).mkdir(parents=True)
    record = {"v": 1, "exit_code": None, "signal": 9, "exception": None, "last_lines": ["a", "b"]}
    layout.exit_record(0, 1, 3).write_text(json.dumps(record))
    found = read_exit(layout, 0, 1, 3)
    assert found is not None
    assert (found.code, found.last_lines, found.exception_type) == (-9, ("a", "b"), "")
    record |= {"exit_code": 1, "exception": {"type": "ValueError", "message": "bad"}}
    layout.exit_record(0, 1, 3).write_text(json.dumps(record))
    found = read_exit(layout, 0, 1, 3)
    assert found is not None
    assert (found.code, found.exception_type, found.exception_message) == (1, "ValueError", "bad")


def test_the_last_metrics_are_found_without_reading_it_all(layout: RunLayout) -> None:
    layout.attempt(0).mkdir(parents=True)
    with layout.metrics(0).open("w") as file:
        for step in range(20_000):
            file.write(json.dumps({"v": 1, "step": step, "loss": 1.0}) + "\n")
    assert read_last_metrics(layout, 0) == {"v": 1, "step": 19_999, "loss": 1.0}


DAMAGED = [
    b"",
    b"\n\n",
    b"{\n",
    b"[1\n2],3\n",
    b'{"v": 1, "t": 1, "type": "smuggled"}],[1\n',
    b"\xff\xfe\n",
    b"[" * 5000 + b"\n",
    b'{"v": 1, "t": 2, "type": "cut"',
]


def test_what_is_damaged_in_one_run_costs_no_other_run_its_events(tmp_path: Path) -> None:
    """However many are read together; and damage is no event."""
    layouts = [RunLayout(tmp_path / str(number)) for number in range(len(DAMAGED) + 1)]
    for number, layout in enumerate(layouts):
        layout.events.mkdir(parents=True)
        whole = b'{"v": 1, "t": %d, "type": "whole"}\n' % number
        (layout.events / "a.jsonl").write_bytes(whole)
        damage = b"".join(DAMAGED[:number][-1:])
        (layout.events / "alone.jsonl").write_bytes(damage)
        (layout.events / "b.jsonl").write_bytes(whole + damage + whole)
        (layout.events / "c.jsonl").write_bytes(whole)
    readers = [EventReader(layout) for layout in layouts]
    read_together(readers)
    told = [[event.type for event in reader.events] for reader in readers]
    assert told == [[event.type for event in read_events(layout)] for layout in layouts]
    assert {kind for kinds in told for kind in kinds} == {"whole"}
    assert {len(kinds) for kinds in told} == {4, 3}  # what follows a cut line is a part of it
