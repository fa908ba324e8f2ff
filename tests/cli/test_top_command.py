"""`ptx top` and `ptx metrics`, on run folders as a run leaves them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import MadeRun
from support.made_samples import gpu, leave_heartbeat, leave_samples, sample

from orchestrator.cli.main import main
from orchestrator.cli.top_page import Room, top_lines
from orchestrator.metrics.board import Board
from orchestrator.runs import server_time
from orchestrator.runs.observe import observe_one

REPORT = {"steps": 800, "start_step": 0, "seconds": 3.0, "loss": 2.5, "samples_per_s": 53.0}
SLOW = {"slow_ranks": [[1, 0.41, 0.0], [0, 0.2, 0.0]], "rank_seconds_median": 0.2}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "runs"))


def live_run(root: Path, name: str = "live-aaaaaa", *, nodes: int = 1, procs: int = 2) -> MadeRun:
    """A run of this process, in the middle of it."""
    run = MadeRun(root / "runs", name, nodes=nodes, procs=procs, created=time.time() - 60)
    run.supervised()
    for node in range(nodes):
        run.started(node)
        leave_heartbeat(run.layout, time.time() - 10, node=node)
    return run


def training(root: Path) -> MadeRun:
    run = live_run(root)
    for number in range(4):
        run.metrics(t=40 + 4 * number, step=10 * (number + 1), **REPORT, **SLOW)
    hot = gpu(1, throttle=["hw_thermal"], temperature=91, xid=79)
    leave_samples(run.layout, [sample(time.time() - 3, [gpu(0), hot], [0, 1])])
    return run


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 0
    return capsys.readouterr().out


def test_one_page_tells_of_steps_nodes_and_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(tmp_path)
    page = told(capsys, "top", "live").splitlines()
    assert re.match(r"live-aaaaaa  running  .*  1 of 1 node, 2 ranks$", page[0])
    assert "step 40/800" in page[1] and "0.400 s a step" in page[1] and "53 samples/s" in page[1]
    (node,) = [line.split() for line in page if "/96" in line]
    assert node[:6] == ["0", "n0", "9.5/96", "100/512", "97%", "60.0/80"]
    one, two = page[-2:]
    assert two.split()[:4] == ["0", "0", "0", "97%"]
    assert one.split()[:4] == ["1", "0", "1", "97%"]  # the one in trouble stands first
    assert one.endswith("0.410  slow, throttled: hw_thermal, Xid 79")


def test_json_has_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training(tmp_path)
    found = json.loads(told(capsys, "top", "live", "--json"))
    assert (found["step"], found["steps"], found["seconds_per_step"]) == (40, 800, 0.4)
    assert [(row["rank"], row["slow"], row["seconds"]) for row in found["ranks"]] == [
        (0, False, 0.2),
        (1, True, 0.41),
    ]
    assert found["nodes"][0]["gpus"][1]["throttle"] == ["hw_thermal"]
    assert 9 < found["nodes"][0]["heartbeat"] < 60


@pytest.mark.parametrize(("here", "there"), [(600, 0), (0, -600), (0, 600)])
def test_clocks_that_are_wrong_hide_no_node_that_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: float, there: float
) -> None:
    """Seconds by which the clock of whoever looks is ahead, and the node's."""
    run, now = live_run(tmp_path), time.time()
    leave_heartbeat(run.layout, now - 10, ahead=there)
    leave_samples(run.layout, [sample(now - 3 + there, [gpu(0)], [0])])
    monkeypatch.setattr(server_time, "_seen", {})
    monkeypatch.setattr(time, "time", lambda: now + here)
    observed, _ = observe_one(run.layout)
    (node,) = Board(run.layout, clock=time.time).look(observed).nodes
    assert (len(node.gpus), node.notes) == (1, ())
    assert node.heartbeat == pytest.approx(10, abs=30)


def test_of_a_thousand_nodes_the_worst_are_shown_and_the_rest_is_summed_up(tmp_path: Path) -> None:
    run = live_run(tmp_path, nodes=1024, procs=8)
    for node in range(1024):
        first = 8 * node
        util = 5 if node == 700 else 90
        gpus = [gpu(n, ranks=[first + n], util=util) for n in range(8)]
        if node == 900:
            gpus[3] |= {"xid": 63}
        leave_samples(run.layout, [sample(time.time(), gpus, range(first, first + 8))], node=node)
    now = time.time()
    leave_heartbeat(run.layout, now - 200, node=333)
    observed, _ = observe_one(run.layout)
    seen = Board(run.layout, clock=lambda: now).look(observed)
    assert (len(seen.nodes), len(seen.ranks)) == (1024, 8192)
    lines = top_lines(seen, Room(80, 24))
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    page = "\n".join(lines)
    silent, xid = next(n for n, line in enumerate(lines) if " n333 " in line), page.index(" n900 ")
    assert "silent for 20" in lines[silent] and page.index(" n333 ") < xid < page.index(" n0 ")
    assert re.search(r"… and 1,01\d more nodes: GPUs at 90% \(5 to 90\), heartbeats up to", page)
    assert re.search(r"8[,\d]+ more ranks", page)
    for columns, rows in ((20, 5), (200, 60), (1, 1)):
        small = top_lines(seen, Room(columns, rows))
        assert len(small) <= rows and max(map(len, small)) <= columns
    assert len(top_lines(seen, Room(None, None))) < 60


def test_text_of_others_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = live_run(tmp_path)
    run.event(3, "node_started", attempt=0, node=0, host="n\x1b[2J\x07", pid=1)
    leave_samples(run.layout, [sample(time.time(), [gpu(0, throttle=["\x1b[H"])], [0])])
    assert "\x1b" not in told(capsys, "top", "live")
    leave_samples(run.layout, [sample(time.time(), [gpu(0, throttle=["\ud800", "\ud800"])], [0])])
    out = tmp_path / "ptx.prom"
    told(capsys, "metrics", "live", "--prometheus", str(out))
    assert out.read_text().count('reason="') == 1 and "\x1b" not in out.read_text()
    (run.layout.node(0, 0) / "samples.jsonl").write_bytes(b'{"v":1,"t":1,"cpu":[],"gpus":{}}\n\xff')
    (run.layout.node(0, 0) / "heartbeat").write_bytes(b"\x00" * 64)
    assert "running" in told(capsys, "top", "live")


def test_a_run_that_has_ended_and_one_that_has_not_begun_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(tmp_path / "runs", "good-bbbbbb").completed().metrics(step=800, **REPORT)
    assert "good-bbbbbb  completed" in told(capsys, "top", "good")
    MadeRun(tmp_path / "runs", "soon-cccccc", created=time.time()).supervised()
    assert "soon-cccccc" in told(capsys, "top", "soon", "--once")


def restarted(root: Path) -> MadeRun:
    run = MadeRun(root / "runs", "back-dddddd").submitted().started()
    for step in (10, 20, 30):
        run.metrics(t=step, step=step, **REPORT)
    changed: dict[str, Any] = {**REPORT, "start_step": 20, "loss": None, "mfu_reason": 'a "b", c'}
    run.metrics(1, t=60, step=30, **changed)
    return run


def test_reports_that_a_restart_undid_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restarted(tmp_path)
    found = json.loads(told(capsys, "metrics", "back", "--json"))["reports"]
    assert [(one["attempt"], one["step"]) for one in found] == [(0, 10), (0, 20), (1, 30)]
    assert found[2]["loss"] is None and "v" not in found[0]
    rows = list(csv.DictReader(io.StringIO(told(capsys, "metrics", "back", "--csv"))))
    assert [row["step"] for row in rows] == ["10", "20", "30"]
    assert (rows[2]["loss"], rows[0]["loss"], rows[2]["mfu_reason"]) == ("", "2.5", 'a "b", c')
    assert "step           30" in told(capsys, "metrics", "back")


def test_reports_of_other_writers_may_hold_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = MadeRun(tmp_path / "runs", "else-eeeeee").submitted().started()
    bad = {"loss": math.nan, "own": [math.inf], "\x1b[2J": "\x1b]0;title\x07"}
    run.metrics(t=10, step=10, **{**REPORT, **bad})
    report = json.loads(told(capsys, "metrics", "else", "--json"))["reports"][0]
    assert (report["loss"], report["own"]) == (None, [None])
    assert "\x1b" not in told(capsys, "metrics", "else")


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    run = training(tmp_path)
    with run.layout.metrics(0).open("a") as file:
        file.write("x" * (3 << 20) + "\n")
    run.metrics(t=60, step=50, **REPORT)
    seen = Board(run.layout).look(observe_one(run.layout, ask=False)[0])
    assert seen.progress.step == 50


def test_a_prometheus_file_is_put_there_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training(tmp_path)
    run.event(3, "node_started", attempt=0, node=0, host='n"0\\\n', pid=1)
    target = tmp_path / "ptx.prom"
    target.write_text("old")
    before = target.stat().st_ino
    told(capsys, "metrics", "live", "--prometheus", str(target))
    assert target.stat().st_ino != before and stat.S_IMODE(target.stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.glob("*prom*")) == ["ptx.prom"]
    text = target.read_text()
    again = parsed(told(capsys, "metrics", "live", "--prometheus", "-"))
    assert again.keys() == parsed(text).keys()
    families = parsed(text)
    base = {"run_id": "live-aaaaaa", "name": "live"}
    assert ({**base, "state": "running"}, 1.0) in families["ptx_run_state"]
    assert families["ptx_step"] == [(base, 40.0)]
    hot = next(row for row in families["ptx_gpu_temperature_celsius"] if row[0]["gpu"] == "1")
    assert hot == ({**base, "node": "0", "host": 'n"0\\\n', "gpu": "1", "uuid": "GPU-1"}, 91.0)
    assert families["ptx_gpu_utilisation_ratio"][0][1] == 0.97
    slow = {labels["rank"]: value for labels, value in families["ptx_rank_slow"]}
    assert slow == {"0": 0.0, "1": 1.0}


def unescaped(found: re.Match[str]) -> str:
    return {"\\\\": "\\", '\\"': '"', "\\n": "\n"}[found[0]]


def parsed(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """As strict as Prometheus' own parser: HELP, TYPE, and then all samples of a family."""
    families: dict[str, list[tuple[dict[str, str], float]]] = {}
    assert text.endswith("\n")
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in families and lines[number + 1] == f"# TYPE {name} gauge"
            families[name] = []
        elif not line.startswith("# TYPE "):
            found = re.fullmatch(r'(\w+)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+)', line)
            assert found, line
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2])
            labels = {key: re.sub(r"\\.", unescaped, value) for key, value in pairs}
            assert list(families)[-1] == found[1]
            families[found[1]].append((labels, float(found[3])))
    return families


def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training(tmp_path)
    assert main(["metrics", "live", "--csv", "--json"]) == 2
    assert main(["metrics", "live", "--prometheus", str(tmp_path / "no" / "x.prom")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["top", "nothing"]) == 3
    MadeRun(tmp_path / "runs", "mute-eeeeee").completed()
    capsys.readouterr()
    for form in ([], ["--csv"]):  # as `ptx plot` says it
        assert main(["metrics", "mute", *form]) == 3
        told = capsys.readouterr()
        assert told.out == "" and "error: mute-eeeeee has reported no metrics." in told.err
    assert main(["metrics", "mute", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-found"
    assert main(["metrics", "mute", "--prometheus", "-"]) == 0  # its state is something


def test_a_loss_that_is_not_finite_is_said_wherever_a_loss_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = MadeRun(tmp_path / "runs", "nan-aaaaaa").completed()
    run.metrics(t=10, step=10, **REPORT).metrics(t=20, step=20, **{**REPORT, "loss": None})
    assert "loss not finite" in told(capsys, "top", "nan")
    assert re.search(r"^loss +not finite$", told(capsys, "metrics", "nan"), re.M)
    assert "step 20/800  loss not finite" in told(capsys, "status", "nan")
    assert re.search(r"20/800 +nan ", told(capsys, "status"))
    assert 'ptx_loss{run_id="nan-aaaaaa",name="nan"} NaN\n' in told(
        capsys, "metrics", "nan", "--prometheus", "-"
    )
    assert "loss not finite since step 20 (last 2.500)" in told(capsys, "plot", "nan")
    run.metrics(t=30, step=30, steps=800)  # one that has none is no NaN
    assert "ptx_loss{" not in told(capsys, "metrics", "nan", "--prometheus", "-")
    assert "loss" not in told(capsys, "top", "nan") + told(capsys, "metrics", "nan")
    assert "nan " not in told(capsys, "status")
