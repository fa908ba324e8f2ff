"""`ptx status`, `ptx wait` and `ptx cancel` on run folders of every kind."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import MadeRun
from support.ptx import CHECKOUT, Ptx

from orchestrator.cli.main import main
from orchestrator.runs.events import read_events
from orchestrator.runs.process import this_process


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of this test are, and no others."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def ptx(root: Path, tmp_path: Path) -> Ptx:
    return Ptx(root, {"XDG_STATE_HOME": str(tmp_path / "state")})


def on_a_terminal(ptx: Ptx, *args: str, columns: int = 80, **env: str) -> str:
    """Standard output of ptx where it is a terminal of that width."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PTX_RUNS": str(ptx.runs), "COLUMNS": str(columns)} | ptx.env | env
    environment["TERM"] = "xterm"
    process = subprocess.Popen(
        [*ptx.argv, *args], cwd=CHECKOUT, env=environment, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(ours)
    assert process.wait() == 0
    return seen.decode().replace("\r\n", "\n")


def test_before_the_first_run_status_says_how_to_start_one(ptx: Ptx) -> None:
    done = ptx("status")
    assert (done.returncode, done.stdout) == (0, "")
    assert "next: ptx submit jobs/quickstart.yaml" in done.stderr
    assert json.loads(ptx.ok("status", "--json")) == {"v": 1, "runs": [], "left_out": 0}


def test_the_table_shows_every_run_newest_first(ptx: Ptx, root: Path) -> None:
    MadeRun(root, "old-aaaaaa", created=1e9).completed().metrics(step=20, steps=300, loss=2.5)
    MadeRun(root, "new-bbbbbb", created=1e9 + 5).failed()
    done = ptx("status")
    lines = done.stdout.splitlines()
    header = "RUN STATE AGE LAUNCHER SIZE STEP LOSS REASON"
    assert " ".join(lines[0].split()) == header
    assert [line.split()[:2] for line in lines[1:]] == [
        ["new-bbbbbb", "failed"],
        ["old-aaaaaa", "completed"],
    ]
    assert lines[1].endswith("Rank 1: ValueError: bad batch.")
    assert "20/300" in lines[2] and "2.5" in lines[2]
    assert done.stderr == "next: ptx status new-bbbbbb\n"


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        (3, "Loaded 1200 samples", "Rank 1 exited with 3: Loaded 1200 samples."),
        (1, "Loaded 1200 samples", "Rank 1 exited with 1: Loaded 1200 samples."),
        (1, "torch.SomeError: CUDA", "Rank 1: torch.SomeError: CUDA."),
        (1, "KeyboardInterrupt", "Rank 1: it was interrupted (SIGINT)."),
        (3, "exit code 3", "Rank 1 exited with 3."),
    ],
)
def test_the_table_tells_how_a_rank_ended_where_no_exception_does(
    ptx: Ptx, root: Path, code: int, message: str, told: str
) -> None:
    run = MadeRun(root, "r-aaaaaa").submitted().started()
    run.ended([0, code], message=message).over()
    assert ptx.ok("status").splitlines()[1].endswith(f"  {told}")


def test_a_terminal_gets_colours_and_cut_lines_and_a_pipe_neither(ptx: Ptx, root: Path) -> None:
    MadeRun(root, "r-aaaaaa").failed("E: " + "x" * 200)
    MadeRun(root, "r-bbbbbb").completed()
    piped = ptx("status").stdout
    assert "x" * 200 in piped and "\x1b" not in piped
    shown = on_a_terminal(ptx, "status", columns=70)
    assert "\x1b[31mfailed" in shown and "\x1b[32mcompleted" in shown and "…" in shown
    plain = on_a_terminal(ptx, "status", columns=70, NO_COLOR="1")
    assert "\x1b" not in plain
    assert max(len(line) for line in plain.splitlines()) == 70


def test_what_a_rank_said_does_not_steer_the_terminal(ptx: Ptx, root: Path) -> None:
    run = MadeRun(root, "r-aaaaaa").failed("E: \x1b[2J\x1b]0;title\x07\u202e")
    record = {"v": 1, "exit_code": 1, "last_lines": ["\x1b[2Jfoo\x07"]}
    run.layout.exit_record(0, 0, 1).write_text(json.dumps(record))
    for args in (["status"], ["status", "r"]):
        shown = on_a_terminal(ptx, *args, columns=200, NO_COLOR="1")
        assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
        assert "E:" in shown


def test_a_hundred_ended_runs_ask_no_scheduler(ptx: Ptx, root: Path, tmp_path: Path) -> None:
    for number in range(100):
        run = MadeRun(root, f"r-{number:06d}", scheduler="slurm", created=1e9 + number)
        _ = run.completed() if number % 2 else run.failed()
    asked = tmp_path / "asked"
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("squeue", "sacct", "scontrol"):
        (tools / name).write_text(f'#!/bin/sh\necho "$0 $*" >> {asked}\nexit 1\n')
        (tools / name).chmod(0o755)
    ptx.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    runs = json.loads(ptx.ok("status", "--json"))["runs"]
    assert [run["state"] for run in runs] == ["completed", "failed"] * 50
    assert not asked.exists()

    # The same stand-ins are asked, once for all, as soon as runs are open.
    for number in range(3):
        MadeRun(root, f"open-{number:06d}", scheduler="slurm").submitted(str(number)).started()
    states = [run["state"] for run in json.loads(ptx.ok("status", "--json"))["runs"]]
    assert states.count("unknown") == 3
    assert asked.read_text().count("sacct") == 1


def test_an_end_that_only_the_scheduler_knew_is_asked_for_once(
    ptx: Ptx, root: Path, tmp_path: Path
) -> None:
    run = MadeRun(root, "r-aaaaaa", scheduler="slurm").submitted("12").started()
    run.ended([-9, -15], t=40)
    asked, tools = tmp_path / "asked", tmp_path / "bin"
    tools.mkdir()
    (tools / "squeue").write_text("#!/bin/sh\nexit 0\n")
    (tools / "sacct").write_text(
        f"#!/bin/sh\necho asked >> {asked}\necho '12|OUT_OF_MEMORY|0:125|None'\n"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    ptx.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    first = json.loads(ptx.ok("status", "r", "--json"))
    again = json.loads(ptx.ok("status", "r", "--json"))
    assert first["state"] == again["state"] == "out-of-memory"
    assert asked.read_text() == "asked\n"


def test_damaged_folders_do_not_hide_the_others(ptx: Ptx, root: Path) -> None:
    MadeRun(root, "good-aaaaaa").completed()
    torn = MadeRun(root, "torn-bbbbbb").completed()
    with (torn.layout.events / "made.jsonl").open("ab") as file:
        file.write(b'\xff\x00garbage\n{"v": 1, "t": 99')
    (MadeRun(root, "none-cccccc").layout.record).write_bytes(b"\x00")
    (root / "empty-dddddd").mkdir()
    (root / "file-eeeeee").write_text("")
    runs = json.loads(ptx.ok("status", "--json"))["runs"]
    assert {run["run_id"]: run["state"] for run in runs} == {
        "good-aaaaaa": "completed",
        "torn-bbbbbb": "completed",
    }
    done = ptx("status", str(root / "none-cccccc"))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_the_page_of_a_failed_run_says_what_one_wants_at_night(ptx: Ptx, root: Path) -> None:
    run = MadeRun(root, "r-aaaaaa").failed()
    record = {"v": 1, "exit_code": 1, "last_lines": ["loading", "ValueError: bad batch"]}
    run.layout.exit_record(0, 0, 1).write_text(json.dumps(record))
    run.layout.rank_log(0, 0, 1).write_text("x" * 2048)
    done = ptx("status", "r")
    for words in (
        "r-aaaaaa  failed",
        "Rank 1 on node 0 (n0) exited with 1: ValueError: bad batch.",
        "1 node x 2 ranks",
        "  | ValueError: bad batch",
        "attempts/000/node-0000/rank-00001.log",
        "2.0 KiB",
        str(run.layout.root),
    ):
        assert words in done.stdout, words
    assert done.stderr == "next: ptx logs r-aaaaaa --rank 1 --tail 50\n"


def test_a_thousand_nodes_fit_on_a_screen_and_the_bad_one_is_first(ptx: Ptx, root: Path) -> None:
    run = MadeRun(root, "r-aaaaaa", nodes=1000, procs=8).submitted()
    for node in range(1000):
        run.event(2, "node_started", attempt=0, node=node, host=f"n{node}", pid=1)
    for node in range(1000):
        run.ended([0, 0, 1, 0, 0, 0, 0, 0] if node == 777 else [0] * 8, node=node)
    lines = ptx.ok("status", "r").splitlines()
    assert len(lines) < 60
    assert lines[next(n for n, line in enumerate(lines) if line.startswith("NODE")) + 1].startswith(
        "777 "
    )
    assert lines[next(n for n, line in enumerate(lines) if line.startswith("RANK")) + 1].startswith(
        "6218 "
    )
    assert "… and 984 more nodes" in lines and "… and 7984 more ranks" in lines


def test_an_unknown_run_is_not_found_and_said_in_json_too(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(root, "quickstart-aaaaaa").completed()
    assert main(["status", "quikstart-aaaaaa"]) == 3
    assert "Did you mean quickstart-aaaaaa?" in capsys.readouterr().err
    assert main(["wait", "nothing", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-found"


def test_wait_tells_the_end_by_its_exit_code(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(root, "good-aaaaaa").completed()
    MadeRun(root, "bad-bbbbbb").failed()
    assert main(["wait", "good"]) == 0
    assert capsys.readouterr().out == "good-aaaaaa completed: All 2 ranks exited with 0.\n"
    assert main(["wait", "bad"]) == 1
    assert "bad-bbbbbb failed: Rank 1 on node 0 (n0) exited with 1" in capsys.readouterr().err
    assert main(["wait", "bad", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["error"]["code"]) == ("failed", "job-failed")


def test_wait_gives_up_with_124_and_the_run_goes_on(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(root, "r-aaaaaa").supervised().started()
    assert main(["wait", "r", "--timeout", "0.2s"]) == 124
    told = capsys.readouterr().err
    assert "r-aaaaaa is still running" in told and "ptx wait r-aaaaaa" in told


def test_wait_sees_an_end_that_comes_while_it_waits(ptx: Ptx, root: Path) -> None:
    run = MadeRun(root, "r-aaaaaa").supervised().started()
    waiting = subprocess.Popen(
        [*ptx.argv, "wait", "r"],
        cwd=CHECKOUT,
        env=os.environ | ptx.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "r-aaaaaa running\n"
    run.ended([0, 0])
    out, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, out.split(":")[0]) == (0, "r-aaaaaa completed")


def test_ctrl_c_ends_a_wait_with_130(ptx: Ptx, root: Path) -> None:
    MadeRun(root, "r-aaaaaa").supervised().started()
    waiting = subprocess.Popen(
        [*ptx.argv, "wait", "r"],
        cwd=CHECKOUT,
        env=os.environ | ptx.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    waiting.stderr.readline()
    waiting.send_signal(2)
    _, told = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert "Traceback" not in told


def test_cancel_ends_a_real_supervisor_and_its_event_comes_first(ptx: Ptx, root: Path) -> None:
    """The supervisor is a process that reads the run folder when SIGTERM comes."""
    run = MadeRun(root, "r-aaaaaa").submitted()
    code = (
        "import json, signal, sys, pathlib\n"
        "from orchestrator.runs.process import this_process\n"
        "print(json.dumps(vars(this_process())), flush=True)\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "events = pathlib.Path(sys.argv[1]).glob('client-*')\n"
        "print([json.loads(p.read_text())['type'] for p in events])\n"
    )
    block = [sys.executable, "-c", f"import signal; signal.pthread_sigmask(0, [15])\n{code}"]
    process = subprocess.Popen(
        [*block, str(run.layout.events)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    run.event(1, "supervisor_started", **json.loads(process.stdout.readline())).started()
    done = ptx("cancel", "r")
    assert (done.returncode, done.stdout) == (0, "r-aaaaaa is being cancelled\n")
    assert done.stderr == "next: ptx wait r-aaaaaa\n"
    assert process.communicate(timeout=30)[0] == "['cancel']\n"
    state = json.loads(ptx.ok("status", "r", "--json"))
    assert state["state"] == "cancelled"
    again = ptx("cancel", "r")
    assert (again.returncode, again.stdout) == (0, "r-aaaaaa was cancelled already\n")


def test_cancelling_an_ended_run_is_a_conflict_and_stops_no_other(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(root, "good-aaaaaa").completed()
    cancelled = MadeRun(root, "gone-bbbbbb").submitted().event(2, "cancel", user="ann")
    cancelled.event(3, "supervisor_ended", rc=-15)
    assert main(["cancel", "good", "gone"]) == 5
    told = capsys.readouterr()
    assert told.out == "gone-bbbbbb was cancelled already\n"
    assert "good-aaaaaa has ended already, completed" in told.err
    assert main(["cancel", "good", "gone", "--json"]) == 5
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert rows[0]["error"]["code"] == "conflict" and rows[1]["error"] is None


def test_a_slip_among_several_names_cancels_none(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = MadeRun(root, "one-aaaaaa").submitted()
    events = sorted(path.name for path in run.layout.events.iterdir())
    assert main(["cancel", "one", "oen"]) == 3
    assert "Nothing was cancelled." in capsys.readouterr().err
    assert sorted(path.name for path in run.layout.events.iterdir()) == events


def test_a_cancel_that_could_not_be_done_does_not_make_a_cancelled_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = {"host": "elsewhere", "boot_id": "b", "pid": 1, "start": 1}
    run = MadeRun(root, "far-aaaaaa").submitted().event(1, "supervisor_started", **elsewhere)
    run.started()
    assert main(["cancel", "far"]) == 2
    assert "on elsewhere" in capsys.readouterr().err
    run.ended([1, 0])
    assert main(["status", "far", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "failed"
    early = MadeRun(root, "soon-aaaaaa").event(1, "intent", **vars(this_process()))
    assert main(["cancel", "soon"]) == 5
    assert [path.name for path in early.layout.events.iterdir()] == ["made.jsonl"]


def test_a_cancel_names_the_submission_that_it_is_of(root: Path) -> None:
    elsewhere = {"host": "elsewhere", "boot_id": "b", "pid": 1, "start": 1}
    run = MadeRun(root, "far-aaaaaa").submitted().event(1, "supervisor_started", **elsewhere)
    assert main(["cancel", "far"]) == 2
    run.event(90, "intent", submission=1, attempt=1, **elsewhere)
    run.event(91, "submitted", submission=1, job_id="13")
    assert main(["cancel", "far"]) == 2
    said = [event for event in read_events(run.layout) if event.type.startswith("cancel")]
    assert [(event.type, event.fields["submission"]) for event in said] == [
        ("cancel", 0),
        ("cancel_failed", 0),
        ("cancel", 1),
        ("cancel_failed", 1),
    ]


def test_a_typo_among_several_runs_cancels_none(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = MadeRun(root, "r-aaaaaa").supervised().started()
    assert main(["cancel", "r", "nothing"]) == 3
    assert "cancel" not in (run.layout.events / "made.jsonl").read_text()
    assert len(list(run.layout.events.iterdir())) == 1
    assert capsys.readouterr().out == ""
