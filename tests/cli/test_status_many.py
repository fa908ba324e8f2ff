"""`ptx status` with many runs: what it shows, what it leaves out, and when it looks again."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import MadeRun
from support.ptx import CHECKOUT, Ptx, eventually

from orchestrator.cli.main import main
from orchestrator.cli.run_choice import Choice, count_words, cut, parse_states
from orchestrator.runs import survey as survey_module
from orchestrator.runs import team as team_module
from orchestrator.runs.events import EventReader
from orchestrator.runs.index import Index
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.row import RunRow
from orchestrator.runs.survey import survey

LONG_AGO = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for SLURM's commands: squeue tells what the returned file holds, each call is a
    line of `calls` beside it."""
    tools, answer = tmp_path / "bin", tmp_path / "answer"
    tools.mkdir()
    answer.write_text("")
    does = {"scontrol": "echo 'Slurmctld(primary) at h is UP'", "squeue": f"cat {answer}"}
    for name in ("scontrol", "squeue", "sacct"):
        said = f"#!/bin/sh\necho {name} >> {tmp_path}/calls\n{does.get(name, 'exit 1')}\n"
        (tools / name).write_text(said)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return answer


def age(root: Path, *, seconds: float = 86400) -> None:
    """As if nothing had been written for so long."""
    then = time.time() - seconds
    for path in root.glob("*/events/*"):
        os.utime(path, (then, then))
    for path in root.glob("*/events"):
        os.utime(path, (then, then))


def many(root: Path, count: int = 30) -> None:
    for number in range(count):
        run = MadeRun(root, f"r-{number:06d}", created=LONG_AGO + number)
        _ = run.completed() if number % 2 else run.failed()
    age(root)


def table(*argv: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["status", *argv]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]


def states(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main(["status", "--json"]) == 0
    return {run["run_id"]: run["state"] for run in json.loads(capsys.readouterr().out)["runs"]}


def read_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose events are read from now on."""
    read: list[str] = []
    usual = EventReader.look

    def noted(self: EventReader, *lists: Any) -> bool:
        read.append(Path(self._folder).parent.name)
        return usual(self, *lists)

    monkeypatch.setattr(EventReader, "look", noted)
    return read


def test_a_second_look_reads_no_run_that_did_not_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(root)
    first = survey()
    first.index.save()
    read = read_runs(monkeypatch)
    second = survey()
    assert (read, second.rows) == ([], first.rows)
    (root / "r-000007" / "events" / "new.jsonl").touch()
    assert survey().rows == first.rows and read == ["r-000007", "r-000007"]


def test_the_index_is_never_the_truth(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed, deleted, made anew under the same name: each is seen at the next look."""
    many(root)
    before = states(capsys)
    (index,) = (tmp_path / "state/ptx/index").iterdir()
    again = MadeRun.__new__(MadeRun)
    again.layout = RunLayout(root / "r-000000")
    events = again.layout.events / "resume-001.jsonl"
    intent = {"v": 1, "t": LONG_AGO + 90, "type": "intent", "submission": 1, "attempt": 1}
    events.write_text(json.dumps(intent) + "\n")
    shutil.rmtree(root / "r-000001")
    shutil.rmtree(root / "r-000003")
    MadeRun(root, "r-000003", created=LONG_AGO + 3).failed()
    after = states(capsys)
    assert (before["r-000000"], after["r-000000"]) == ("failed", "submitting")
    assert "r-000001" in before and "r-000001" not in after
    assert (before["r-000003"], after["r-000003"]) == ("completed", "failed")
    changed = {"r-000000", "r-000001", "r-000003"}
    assert {name: before[name] for name in before.keys() - changed} == {
        name: after[name] for name in after.keys() - changed
    }
    index.unlink()
    assert states(capsys) == after


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "noise", "folder", "other version"])
def test_a_damaged_index_is_none(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    many(root)
    told = states(capsys)
    (index,) = (tmp_path / "state/ptx/index").iterdir()
    data = index.read_bytes()
    if damage == "folder":
        index.unlink()
        index.mkdir()
    else:
        middle = len(data) // 2
        index.write_bytes(
            {
                "cut": data[:middle],
                "bit": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
                "empty": b"",
                "noise": os.urandom(3000),
                "other version": data.replace(b"ptx index ", b"ptx index 9", 1),
            }[damage]
        )
    assert states(capsys) == told


def test_an_index_of_another_folder_or_of_another_user_is_none(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many(root)
    states(capsys)
    (path,) = (tmp_path / "state/ptx/index").iterdir()
    run = str(root / "r-000000")
    mine = Index.of(None)
    assert mine.get(run) is not None
    assert Index(path, b"another folder").get(run) is None
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        assert Index.of(None).get(run) is None


def test_an_append_to_an_old_file_of_a_live_run_is_seen(
    root: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder does not change then: only the file does."""
    for number in range(25):
        MadeRun(root, f"r-{number:06d}", scheduler="slurm").submitted(str(number)).started()
    age(root)
    slurm.write_text("".join(f"{number}|RUNNING|None\n" for number in range(25)))
    assert set(states(capsys).values()) == {"running"}
    run = MadeRun.__new__(MadeRun)
    run.layout, run.procs, run.created = RunLayout(root / "r-000007"), 2, LONG_AGO
    run.ended([0, 0])
    assert states(capsys)["r-000007"] == "completed"
    slurm.write_text("".join(f"{number}|PENDING|Priority\n" for number in range(25)))
    assert states(capsys)["r-000008"] == "pending"


def test_what_has_just_changed_is_not_kept(root: Path) -> None:
    for number in range(30):
        folder = MadeRun(root, f"r-{number:06d}").completed().layout.root
        os.utime(folder, (time.time() + 60, time.time() + 60))  # however slow this test is
    first = survey()
    first.index.save()
    assert survey().index.get(first.rows[0].path) is None


def test_many_are_read_by_several_processes_and_told_alike(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the index does not have, and those of which it is asked whether it still holds."""
    many(root, 40)
    for number in range(40, 50):
        MadeRun(root, f"r-{number:06d}", created=LONG_AGO + number).supervised().started()
    first = survey()
    assert {row.state for row in first.rows} == {"completed", "failed", "running"}
    monkeypatch.setattr(survey_module, "_SHARE", 10)
    monkeypatch.setattr(team_module, "_PIECE", 3)
    monkeypatch.setattr(survey_module.os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(survey_module, "_MUCH", 40)
    forked, meanwhile = forks(monkeypatch), []
    assert survey(meanwhile=lambda: meanwhile.append(len(forked))).rows == first.rows
    first.index.save()
    shutil.rmtree(root / "r-000003")
    left = survey(meanwhile=lambda: meanwhile.append(-1)).rows  # over before that would be
    assert left == [row for row in first.rows if row.run_id != "r-000003"]
    assert len(forked) == 4 and meanwhile == [2]


def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pids of the copies that are made from now on."""
    made: list[int] = []
    usual = os.fork

    def noted() -> int:
        pid = usual()
        made.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", noted)
    return made


def test_two_thousand_live_jobs_are_one_question(
    root: Path, tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And jobs of the same numbers on another cluster, which have other names, are not theirs."""
    for number in range(600):
        run = MadeRun(root, f"r-{number:06d}", scheduler="slurm")
        run.event(0, "submitted", job_id=str(number + 1))
    rows = [f"{number + 1}|RUNNING|None|r-{number:06d}" for number in range(590)]
    slurm.write_text("\n".join([*rows, *(f"{n}|RUNNING|None|other" for n in range(591, 700))]))
    found = list(states(capsys).values())
    assert (found.count("pending"), found.count("unknown")) == (590, 10)
    assert (tmp_path / "calls").read_text().split().count("squeue") == 1
    assert (tmp_path / "calls").read_text().split().count("sacct") == 1


def test_without_slurm_what_is_not_known_is_unknown(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(root, "r-000001", scheduler="slurm").submitted("1").started()
    MadeRun(root, "r-000002", scheduler="slurm").completed()
    monkeypatch.setenv("PATH", "/nowhere")
    assert states(capsys) == {"r-000001": "unknown", "r-000002": "completed"}


def test_filters_choose_and_several_must_all_fit(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    MadeRun(root, "llama-aaaaaa", created=now - 100, nodes=4).failed()
    MadeRun(root, "llama-bbbbbb", created=now - 9000).completed()
    MadeRun(root, "bert-cccccc", created=now - 200, nodes=2).failed()
    MadeRun(root, "bert-dddddd", created=now - 50).supervised().started()
    for argv, expected in {
        (): ["bert-dddddd", "llama-aaaaaa", "bert-cccccc", "llama-bbbbbb"],
        ("--state", "live"): ["bert-dddddd"],
        ("--state", "failed,completed", "--name", "llama"): ["llama-aaaaaa", "llama-bbbbbb"],
        ("--name", "b*c"): ["bert-cccccc"],
        ("--since", "1h", "--state", "ended"): ["llama-aaaaaa", "bert-cccccc"],
        ("--sort", "size", "--limit", "2"): ["llama-aaaaaa", "bert-cccccc"],
        ("--sort", "name", "-n", "1"): ["bert-cccccc"],
    }.items():
        assert table(*argv, capsys=capsys) == expected, argv
    for wrong in (["--state", "broken"], ["--sort", "loss"], ["--since", "x"], ["--every", "5"]):
        assert main(["status", *wrong]) == 2
    assert main(["status", "llama-a", "--state", "failed"]) == 2
    assert main(["status", "--name", "nothing"]) == 0
    assert "None of 4 runs" in capsys.readouterr().err


def row(number: int, state: str) -> RunRow:
    blank: dict[str, Any] = dict.fromkeys(RunRow._fields, "")
    return RunRow(**blank | {"path": str(number), "state": state, "created": -float(number)})


def test_a_cut_table_keeps_live_runs_and_the_newest_ended() -> None:
    rows = [row(n, "running" if n % 50 == 49 else "failed") for n in range(1000)]
    shown = cut(rows, 30)
    assert [one for one in rows if one in shown] == shown and len(shown) == 30
    assert sum(one.live for one in shown) == 20
    assert [one for one in shown if not one.live] == rows[:10]
    busy = cut([row(n, "running" if n > 20 else "failed") for n in range(1000)], 30)
    assert sum(one.live for one in busy) == 20
    assert cut(rows[:3], 30) == rows[:3]
    assert count_words(rows) == "1,000 runs: 20 running, 980 failed"


def test_every_state_may_be_asked_for() -> None:
    assert parse_states(["failed, cancelled", "live"]) >= {"failed", "cancelled", "running"}
    assert not Choice(parse_states(["ended"])).takes(row(1, "unknown"))


class Terminal:
    """ptx in a terminal of its own."""

    def __init__(self, root: Path, *argv: str) -> None:
        self._screen, theirs = pty.openpty()
        env = os.environ | {"PTX_RUNS": str(root), "COLUMNS": "90", "LINES": "20", "TERM": "xterm"}
        self.process = subprocess.Popen(
            [*Ptx(root).argv, *argv], cwd=CHECKOUT, env=env, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.seen = b""

    def read(self) -> bytes:
        while select.select([self._screen], [], [], 0.1)[0]:
            try:
                block = os.read(self._screen, 65536)
            except OSError:
                break
            if not block:
                break
            self.seen += block
        return self.seen

    def shows(self, words: bytes) -> None:
        eventually(lambda: words in self.read(), within=60, what=f"{words!r} in {self.seen!r}")


@pytest.fixture
def terminal(root: Path) -> Iterator[Any]:
    opened: list[Terminal] = []

    def start(*argv: str) -> Terminal:
        opened.append(Terminal(root, *argv))
        return opened[-1]

    yield start
    for one in opened:
        one.process.kill()
        one.process.wait()


@pytest.mark.slow
def test_watch_shows_what_changes_and_ctrl_c_leaves_the_terminal_as_it_was(
    root: Path, terminal: Any
) -> None:
    run = MadeRun(root, "r-aaaaaa").supervised().started()
    screen = terminal("status", "--watch", "--every", "1")
    screen.shows(b"1 run: 1 running")
    run.ended([0, 0])
    screen.shows(b"1 run: 1 completed")
    shutil.rmtree(run.layout.root)
    screen.shows(b"0 runs")
    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(timeout=30) == 130
    last = screen.read()
    assert b"Traceback" not in last
    assert last.rindex(b"\x1b[?1049l") > last.rindex(b"\x1b[?1049h")
    assert last.rindex(b"\x1b[?25h") > last.rindex(b"\x1b[?25l")


@pytest.mark.slow
def test_watching_one_run_ends_with_it(root: Path, terminal: Any) -> None:
    run = MadeRun(root, "r-aaaaaa").supervised().started()
    screen = terminal("status", "r-aaaaaa", "-w", "--every", "1")
    screen.shows(b"running")
    run.ended([0, 0])
    assert screen.process.wait(timeout=30) == 0
    assert b"completed" in screen.read().rpartition(b"\x1b[?1049l")[2]


@pytest.mark.slow
def test_a_run_that_is_deleted_while_it_is_watched_is_told_in_a_sentence(
    root: Path, terminal: Any
) -> None:
    for argv in (("status", "r", "-w", "--every", "1"), ("wait", "r")):
        run = MadeRun(root, "r-aaaaaa").supervised().started()
        screen = terminal(*argv)
        screen.shows(b"running")
        shutil.rmtree(run.layout.root)
        assert screen.process.wait(timeout=60) == 2
        assert b"error:" in screen.read() and b"Traceback" not in screen.read()


def test_runs_that_cannot_be_read_are_no_runs_that_are_not_there(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What holds no run.json, as where a run was deleted, is none, and nothing is said of it."""
    for name in ("newer-bbbbbb", "half-aaaaaa", "notes"):
        MadeRun(root, name).completed().layout.record.unlink()
    record = root / "half-aaaaaa" / "run.json"
    record.write_text('{"v": 1, "run_id": "ha')
    trouble = f"warning: {record} cannot be read by this version of ptx; it may be damaged"
    assert main(["status"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(trouble) and "no runs yet" not in err
    assert main(["status", "@last"]) == 3
    assert "no run that can be read" in capsys.readouterr().err
    (root / "newer-bbbbbb" / "run.json").write_text('{"v": 99}')
    MadeRun(root, "fine-dddddd").completed()
    for more in ([], ["--json"]):
        assert main(["status", *more]) == 0
        out, err = capsys.readouterr()
        assert f"{record} and that of one other run cannot be read" in err
        assert "fine-dddddd" in out and "newer" not in out
    assert main(["status", "half-aaaaaa"]) == 2  # as the table says


@pytest.mark.slow
def test_what_had_just_changed_when_it_was_read_is_not_kept_however_long_slurm_takes(
    root: Path, slurm: Path
) -> None:
    """A file that is made in the same tick of the clock leaves the folder's time as it is."""
    for number in range(25):
        MadeRun(root, f"r-{number:06d}", scheduler="slurm").submitted(str(number)).started()
    slurm.write_text("".join(f"{number}|RUNNING|None\n" for number in range(25)))
    squeue = next(Path(part) for part in os.environ["PATH"].split(":")) / "squeue"
    squeue.write_text(squeue.read_text().replace("#!/bin/sh\n", "#!/bin/sh\nsleep 2.5\n"))
    found = survey()
    found.index.save()
    assert [row.state for row in found.rows] == ["running"] * 25
    assert survey().index.get(found.rows[0].path) is None
