"""Whatever JSON lies in a record or in an event, reading it and judging it raises nothing."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.made_runs import MadeRun

from orchestrator.cli.output import emit_json
from orchestrator.cli.run_json import run_details
from orchestrator.cli.run_page import run_page
from orchestrator.errors import UserError
from orchestrator.runs.events import EventReader, read_events
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import observe_one
from orchestrator.runs.reading import read_bytes, read_tail
from orchestrator.runs.records import read_exit, read_heartbeat, read_last_metrics, read_record

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**63, 10**400, 1e308, -0.0])
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
TYPES = [
    "intent",
    "submitted",
    "submit_failed",
    "cancel",
    "cancel_failed",
    "job_ended",
    "job_started",
    "attempt_ended",
    "requeue",
    "waiting_for_gpus",
    "gpus_bound",
    "supervisor_started",
    "supervisor_ended",
    "node_started",
    "node_ended",
    "signal",
]
KEYS = [
    "scheduler",
    "host",
    "boot_id",
    "pid",
    "start",
    "pid_namespace",
    "job_id",
    "submission",
    "message",
    "attempt",
    "launcher",
    "nodes",
    "procs_per_node",
    "world_size",
    "state",
    "reason",
    "class",
    "retry",
    "counted",
    "where",
    "nodes_failed",
    "early",
    "wanted",
    "free",
    "rc",
    "node",
    "ranks",
    "first_failure",
    "user",
]
SMALL = st.integers(0, 3) | st.sampled_from([10**400, -1, None]) | VALUES
FAILURE = st.fixed_dictionaries(dict.fromkeys(("rank", "code", "signal", "t", "message"), SMALL))
RANKS = st.dictionaries(st.sampled_from(["0", "1", "²", "9" * 5000]), SMALL, max_size=3)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "v": st.just(1),
            "t": st.floats(0, 100) | VALUES,
            "type": st.sampled_from((*TYPES, *["node_ended"] * 8)),
        },
        optional=dict.fromkeys(KEYS, SMALL)
        | {"attempt": st.just(0) | SMALL, "node": st.just(0) | SMALL}
        | {"first_failure": FAILURE | VALUES, "ranks": RANKS | VALUES},
    ),
    max_size=8,
)
RECORD = [
    "run_id",
    "name",
    "created",
    "scheduler",
    "launcher",
    "nodes",
    "procs_per_node",
    "world_size",
    "user",
    "host",
    "spec_path",
    "argv",
]


def node_ended(**fields: Any) -> list[dict[str, Any]]:
    return [{"v": 1, "t": 1.8e9, "type": "node_ended", "attempt": 0, "node": 0, **fields}]


# Each of these was a traceback once; chance finds them now and then.
@example(node_ended(first_failure={"rank": 0, "code": 1, "t": 10**400}), {})
@example(node_ended(ranks={"9" * 5000: 1}), {})
@example(node_ended(reason="completed", ranks={"0": 0, "1": 0}), {"world_size": 10**12})
@example([], {"created": float("nan"), "name": "\x1b[2J"})
@example([{"v": 1, "t": 10**400, "type": "node_started"}], {"nodes": 10**400})
@settings(max_examples=150)
@given(EVENTS, st.dictionaries(st.sampled_from(RECORD), VALUES))
def test_every_run_can_be_judged_and_shown(
    events: list[dict[str, Any]], changed: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        run = MadeRun(Path(name), "r-aaaaaa").submitted()
        run.event(2, "node_started", attempt=0, node=0, host="n0", pid=1)
        record = json.loads(run.layout.record.read_text()) | changed
        record["scheduler"] = "nowhere"  # nobody to ask
        run.layout.record.write_text(json.dumps(record))
        lines = "".join(f"{json.dumps(event)}\n" for event in events)
        (run.layout.events / "x.jsonl").write_text(lines)
        run.layout.node(0, 0).mkdir(parents=True)
        for path in (run.layout.exit_record(0, 0, 0), run.layout.node(0, 0) / "heartbeat"):
            path.write_text(json.dumps({"v": 1, "t": record["created"], **changed}))
        run.layout.metrics(0).write_text(json.dumps({"v": 1, **changed}) + "\n")
        read_exit(run.layout, 0, 0, 0), read_heartbeat(run.layout, 0, 0)
        read_last_metrics(run.layout, 0)
        if read_record(run.layout) is None:
            with pytest.raises(UserError):
                observe_one(run.layout)
            return
        observed, _ = observe_one(run.layout)
        json.dumps(observed.row())
        details = run_details(observed)
        emit_json(details)
        run_page(observed, details["metrics"], 1e9)


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        layout = RunLayout(Path(name))
        layout.events.mkdir()
        (layout.events / "x.jsonl").write_bytes(data)
        assert read_events(layout) == []


@given(st.lists(st.integers(1, 40), max_size=12))
def test_reading_on_gives_what_reading_anew_gives(steps: list[int]) -> None:
    """However the file grew between two looks."""
    whole = b"".join(
        json.dumps({"v": 1, "t": number, "type": "x"}).encode() + b"\n" for number in range(8)
    )
    with tempfile.TemporaryDirectory() as name:
        layout = RunLayout(Path(name))
        layout.events.mkdir()
        path, reader, done = layout.events / "x.jsonl", EventReader(layout), 0
        for step in steps:
            with path.open("ab") as file:
                file.write(whole[done : done + step])
            done += step
            assert reader.read() == read_events(layout)


def test_a_look_reads_only_what_was_written_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand nodes: two files opened for two that changed."""
    run = MadeRun(tmp_path, "r-aaaaaa")
    for node in range(300):
        (run.layout.events / f"a000-node-{node:04d}.jsonl").write_text(
            json.dumps({"v": 1, "t": node, "type": "node_started"}) + "\n"
        )
    reader = EventReader(run.layout)
    assert len(reader.read()) == 300
    opened: list[str] = []
    usual = os.open

    def counted(path: Any, *args: Any, **more: Any) -> int:
        opened.append(Path(path).name)
        return usual(path, *args, **more)

    monkeypatch.setattr(os, "open", counted)
    same = reader.read()
    assert (opened, reader.read() is same) == ([], True)
    with (run.layout.events / "a000-node-0007.jsonl").open("a") as file:
        file.write(json.dumps({"v": 1, "t": 999, "type": "node_ended"}) + "\n")
    assert [event.type for event in reader.read()][-1] == "node_ended"
    assert set(opened) == {"a000-node-0007.jsonl"}


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(b"x" * 5000)
    for name in ("fifo", "zero", "."):
        for read in (lambda path: read_bytes(path, 10), lambda path: read_tail(path, 10)):
            with pytest.raises(OSError):
                read(tmp_path / name)
    with pytest.raises(OSError, match="larger"):
        read_bytes(tmp_path / "large", 4999)
    assert len(read_bytes(tmp_path / "large", 5000)) == 5000
    assert len(read_tail(tmp_path / "large", 4999)) == 4999
