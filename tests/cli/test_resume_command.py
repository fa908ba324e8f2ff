"""`ptx resume`: the same run again, once, from where it should, and nothing else changed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.kill_resume import NOT_STARTED, POINTS
from support.made_checkpoints import made_checkpoint
from support.made_runs import MadeRun
from support.ptx import CHECKOUT, Ptx

from orchestrator.checkpoints.manifest import Manifest
from orchestrator.errors import Conflict, UserError
from orchestrator.preparation import Choices
from orchestrator.resumption import prepare_resumption
from orchestrator.runs.events import read_events
from orchestrator.runs.layout import RunLayout

pytestmark = pytest.mark.slow

# Ends before the launcher starts, within a second, unless SETUP says otherwise.
SPEC = """\
name: again
entrypoint: {command: [python3, -c, "import os; print(os.environ['WORD'])"]}
resources: {procs_per_node: 1, gpus_per_node: 0}
env: {WORD: before}
setup: ["echo setup; exit 3"]
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run whose setup failed; tests take copies of its whole root."""
    root = tmp_path_factory.mktemp("ended")
    ptx = Ptx(root / "runs", {"XDG_STATE_HOME": str(root / "state")})
    (root / "again.yaml").write_text(SPEC)
    run = ptx.submit(root / "again.yaml")
    assert ptx("wait", run.name).returncode == 1
    return run


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})


@pytest.fixture
def run(ended: Path, ptx: Ptx) -> Path:
    """The run, as if it had been made here."""
    copy = ptx.runs / ended.name
    shutil.copytree(ended, copy)
    for path in (copy / "bundle").iterdir():
        data = path.read_bytes()
        if path.suffix != ".pyz":
            path.write_bytes(data.replace(str(ended).encode(), str(copy).encode()))
    return copy


def types(run: Path) -> list[str]:
    return [event.type for event in read_events(RunLayout(run))]


def plan(run: Path, bundle: str = "bundle") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / bundle / "plan.json").read_text())
    return found


def test_a_run_that_failed_is_put_right_and_completes(ptx: Ptx, run: Path) -> None:
    done = ptx("resume", "again", "--set", "setup=[]", "--set", "env.WORD=after")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run.name}\n"
    assert "attempt 1 begins at step 0: there is no whole checkpoint" in done.stderr
    assert "env.WORD  before -> after" in done.stderr
    assert ptx("wait", "again").returncode == 0, ptx.story(run)
    assert "after" in ptx.ok("logs", "again")
    state = ptx.state(run)
    assert (state["state"], state["attempts"], state["resumed"]) == ("completed", [0, 1], 1)
    assert state["restarts"] == {}
    assert plan(run)["workdir"] == plan(run, "bundle.000")["workdir"]
    assert (run / "spec.yaml").read_text() == SPEC
    refused = ptx("resume", "again")
    assert refused.returncode == Conflict.exit_code
    assert "has completed and left no checkpoint to go on from" in refused.stderr
    # And once more, from a spec that is by now the changed one.
    again = ptx.ok("resume", "again", "--from", "0", "--dry-run", "--json")
    told = json.loads(again)
    assert (told["attempt"], told["changes"], told["job_id"]) == (2, [], None)


def test_a_resumed_run_can_be_watched_from_where_it_begins(ptx: Ptx, run: Path) -> None:
    said = run / "attempts/000/node-0000/rank-00000.log"
    said.write_text("2026-11-21T00:47:11.123456Z o in the first attempt\n")
    done = ptx("resume", "again", "--follow", "--set", "setup=[]", "--set", "env.WORD=after")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == run.name
    assert [line for line in lines[1:] if line.endswith("after")], done.stdout
    assert "first attempt" not in done.stdout
    assert f"{run.name} completed after" in done.stderr
    refused = ptx("resume", "again", "--follow", "--dry-run")
    assert refused.returncode == 2
    assert "do not go together" in refused.stderr


def test_a_resumption_is_told_that_a_save_takes_longer_than_the_warning(
    ptx: Ptx, run: Path
) -> None:
    """By what the run's own saves took; not by what another run's did."""
    saved(run, "step-00000040.a000", 200.0)
    made = ("--set", "scheduler=slurm", "--set", "resources.time_limit=2h")
    done = ptx("resume", "again", "--dry-run", *made, "--set", "checkpoint.on_signal=true")
    assert "a save took 200 s (step 40 of " in done.stderr
    assert "of which 90 s are for saving" in done.stderr
    assert "set slurm.signal_before to 430 or more" in done.stderr
    enough = ("--set", "checkpoint.on_signal=true", "--set", "slurm.signal_before=430")
    assert "a save took" not in ptx("resume", "again", "--dry-run", *made, *enough).stderr


@pytest.mark.parametrize("command", ["validate", "submit"])
def test_the_warning_is_held_against_the_saves_of_earlier_runs_of_the_name(
    ptx: Ptx, run: Path, tmp_path: Path, command: str
) -> None:
    spec = tmp_path / "again.yaml"
    text = SPEC.replace("procs_per_node: 1", "procs_per_node: 1, time_limit: 2h")
    text += "scheduler: slurm\ncheckpoint: {every_steps: 10}\nslurm: {signal_before: 20}\n"
    spec.write_text(text)
    argv = [command, str(spec), *(["--dry-run"] if command == "submit" else [])]
    unknown = ptx(*argv).stderr
    assert "the ranks are warned 20 s before the time limit, and in that time they" in unknown
    saved(run, "step-00000040.a000", 3.0)
    assert "warned" not in ptx(*argv).stderr
    saved(run, "step-00000050.a000", 9.0)
    told = ptx(*argv).stderr
    assert ":8:24: warning[conflict]: the ranks are warned 20 s" in told
    assert "a save took 9 s (step 50 of again-" in told
    spec.write_text(text.replace("name: again", "name: again-b"))
    assert "and in that time they" in ptx(*argv).stderr


def saved(run: Path, name: str, seconds: float) -> None:
    """A committed checkpoint whose save took so long."""
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True)
    manifest = Manifest(run.name, int(name[5:13]), 0, 0.0, 1, {}, {}, (), {"save_seconds": seconds})
    (folder / "manifest.json").write_bytes(manifest.to_json())


def test_a_dry_run_prints_everything_and_touches_nothing(ptx: Ptx, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if "events" not in str(path)}
    done = ptx("resume", "again", "--dry-run", "--set", "env.WORD=after")
    assert done.returncode == 0
    assert "# ==> plan.json" in done.stdout and "env.WORD  before -> after" in done.stderr
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if "events" not in str(path)}
    assert after == before
    assert types(run).count("intent") == 1


def test_a_run_that_goes_on_is_not_resumed(ptx: Ptx) -> None:
    MadeRun(ptx.runs, "live-aaaaaa").supervised().started()
    done = ptx("resume", "live")
    assert done.returncode == 5
    assert "has not ended: it is running" in done.stderr
    assert "`ptx cancel live-aaaaaa` ends it" in done.stderr
    error = json.loads(ptx("resume", "live", "--json").stdout)["error"]
    assert error["code"] == "conflict"
    assert ptx("resume", "nothing").returncode == 3


def test_an_end_that_may_be_taken_back_is_none_and_one_that_nobody_knows_is(
    ptx: Ptx, tmp_path: Path
) -> None:
    run = MadeRun(ptx.runs, "gone-aaaaaa", scheduler="slurm").submitted("12").started()
    run.ended([-9, -15], t=40)  # nobody says whether that was the out-of-memory killer's
    tools, sacct = tmp_path / "bin", tmp_path / "bin" / "sacct"
    tools.mkdir()
    (tools / "scontrol").write_text("#!/bin/sh\necho 'Slurmctld(primary) at h is UP'\n")
    (tools / "squeue").write_text("#!/bin/sh\n")
    sacct.write_text("#!/bin/sh\necho '12|PREEMPTED|0:15|None'\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    ptx.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    refused = ptx("resume", "gone")
    assert refused.returncode == 5
    assert "may not have ended" in refused.stderr and "`ptx cancel gone-aaaaaa`" in refused.stderr
    sacct.write_text("#!/bin/sh\nexit 1\n")  # no accounting, and squeue has forgotten it
    assert "spec.yaml" in ptx("resume", "gone").stderr  # it goes on to the bundle, which this lacks


def test_it_says_where_it_continues_and_going_back_stays_in_the_plan(ptx: Ptx, run: Path) -> None:
    for step in (10, 20, 30):
        made_checkpoint(run, step)
    dry = ["resume", "again", "--dry-run"]
    assert "continues from step 30 of attempt 0, saved by 2 ranks under zero3" in ptx(*dry).stderr
    assert "continues from step 20" in ptx(*dry, "--from", "20").stderr
    assert "begins at step 0: --from 0" in ptx(*dry, "--from", "0").stderr
    missing = ptx(*dry, "--from", "25")
    assert missing.returncode == 3
    assert "There are steps 10, 20, 30." in missing.stderr
    never = ptx(*dry, "--set", "checkpoint.resume=never")
    assert "begins at step 0: checkpoint.resume is never" in never.stderr

    os.truncate(run / "checkpoints" / "step-00000030.a000" / "rank-00000.safetensors", 9)
    torn = ptx(*dry).stderr
    assert "step 30 is damaged and passed over: " in torn and "continues from step 20" in torn

    (run / "checkpoints" / "step-00000020.a000" / "manifest.json").write_text("{")
    os.truncate(run / "checkpoints" / "step-00000010.a000" / "rank-00000.safetensors", 9)
    refused = ptx(*dry)
    assert refused.returncode == 1 and "All checkpoints of" in refused.stderr, refused.stderr
    assert "--from 0` begins anew" in refused.stderr
    assert ptx(*dry, "--from", "0").returncode == 0
    for step in (10, 20, 30):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}.a000")
        made_checkpoint(run, step)

    assert ptx("resume", "again", "--from", "10").returncode == 0
    assert ptx("wait", "again").returncode == 1
    assert plan(run)["resume_from"] == {"step": 10, "attempt": 1}
    assert "continues from step 10" in ptx(*dry).stderr  # 20 and 30 are another history
    listed = json.loads(ptx.ok("checkpoints", "list", "again", "--json"))["checkpoints"]
    assert [one["eligible"] for one in listed] == [False, False, True]


def test_what_the_ranks_would_refuse_is_refused_before_anything_waits_in_a_queue(
    ptx: Ptx, run: Path
) -> None:
    for step in (10, 20):
        made_checkpoint(run, step)
    newest = run / "checkpoints" / "step-00000020.a000"
    newest.chmod(0o770)
    refused = ptx("resume", "again")
    assert refused.returncode == 1
    assert f"{newest} can be written by its group" in refused.stderr
    assert "hint: if nobody has: chmod -R go-w" in refused.stderr
    assert types(run).count("intent") == 1
    assert ptx("resume", "again", "--from", "20").returncode == 1
    dry = ["resume", "again", "--dry-run"]
    assert "continues from step 10" in ptx(*dry, "--from", "10").stderr
    assert ptx(*dry, "--from", "0").returncode == 0
    assert ptx(*dry, "--set", "checkpoint.resume=never").returncode == 0
    newest.chmod(0o700)
    assert "continues from step 20" in ptx(*dry).stderr


def test_nobody_is_sent_back_to_step_0_by_a_file_server_that_is_away(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20):
        made_checkpoint(run, step)
    os.truncate(run / "checkpoints" / "step-00000020.a000" / "rank-00000.safetensors", 9)
    scandir, away = os.scandir, "step-00000010"

    def looks(folder: Path) -> Any:
        if away in str(folder):
            raise OSError(errno.ESTALE, "Stale file handle", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", looks)
    with pytest.raises(UserError, match=r"at the moment: .*Stale file handle") as raised:
        prepare_resumption(RunLayout(run), Choices())
    assert "--from 0" not in str(raised.value.hint)
    away = "step-00000020"
    told = prepare_resumption(RunLayout(run), Choices())
    assert told.checkpoint is not None and told.checkpoint.folder.step == 10
    assert [one.away for one in told.damaged] == [True]


def test_a_resumption_that_the_scheduler_refuses_changes_nothing(
    ptx: Ptx, run: Path, tmp_path: Path
) -> None:
    """A stand-in sbatch that refuses, under an scontrol that says all is well."""
    for step in (10, 20):
        made_checkpoint(run, step)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {
        "scontrol": "echo 'Slurmctld(primary) at h is UP'",
        "srun": "",
        "squeue": "",
        "sbatch": "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    slurm = Ptx(ptx.runs, ptx.env | {"PATH": f"{tools}:{os.environ['PATH']}"})
    wrong = ("--set", "scheduler=slurm", "--set", "slurm.partition=nope")
    for _ in range(2):
        refused = slurm("resume", "again", "--from", "10", *wrong, "--set", "env.WORD=after")
        assert refused.returncode == 2 and "partition" in refused.stderr, refused.stderr
    assert types(run).count("submit_failed") == 2
    assert plan(run)["resume_from"] == {"step": 10, "attempt": 1}  # it was put there

    listed = json.loads(ptx.ok("checkpoints", "list", "again", "--json"))["checkpoints"]
    assert [(one["step"], one["eligible"]) for one in listed] == [(20, True), (10, True)]
    told = json.loads(ptx.ok("resume", "again", "--dry-run", "--json"))
    assert (told["changes"], told["scheduler"]) == ([], "local")
    assert "continues from step 20" in ptx("resume", "again", "--dry-run").stderr
    assert json.loads(ptx.ok("status", "again", "--json"))["files"]["bundle"] == f"{run}/bundle.000"

    done = ptx("resume", "again", "--set", "setup=[]", "--set", "env.WORD=third")
    assert done.returncode == 0 and "env.WORD  before -> third" in done.stderr, done.stderr
    assert ptx("wait", "again").returncode == 0
    assert "resume_from" not in plan(run) or plan(run)["resume_from"] is None
    assert json.loads(ptx.ok("status", "again", "--json"))["files"]["bundle"] == f"{run}/bundle"


def test_of_two_who_resume_at_the_same_moment_one_does(ptx: Ptx, run: Path) -> None:
    environment = os.environ | {"PTX_RUNS": str(ptx.runs)} | ptx.env
    argv = [*ptx.argv, "resume", "again"]
    many = [
        subprocess.Popen(argv, cwd=CHECKOUT, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    codes = [(one.wait(), one.stderr.read() if one.stderr else "") for one in many]
    started = [event for event in types(run) if event == "supervisor_started"]
    resumed = [code for code, _ in codes if code == 0]
    # One that comes late may find a run that has ended again, and resume that.
    assert len(started) - 1 == len(resumed) >= 1, codes
    assert {code for code, _ in codes} <= {0, 5}, codes
    assert len(list((run / "events").glob("resume-*"))) == len(resumed)


@pytest.mark.parametrize("point", POINTS)
def test_a_client_that_is_killed_leaves_one_job_or_none_and_the_next_command_knows(
    ptx: Ptx, run: Path, point: str
) -> None:
    script = CHECKOUT / "tests" / "support" / "kill_resume.py"
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])
    killed = Ptx(ptx.runs, ptx.env | {"PYTHONPATH": path}, argv=(sys.executable, str(script)))
    assert killed(point, "resume", "again").returncode == -signal.SIGKILL

    state = json.loads(ptx("wait", "again", "--json", timeout=60).stdout)
    begun = [] if point in NOT_STARTED else [1]
    assert (state["state"], state["attempts"]) == ("launch-error", [0, *begun]), ptx.story(run)
    assert types(run).count("supervisor_started") == 1 + len(begun)
    if "bundle" in point:
        done = ptx("resume", "again", "--set", "env.WORD=after")
        assert done.returncode == 0, done.stderr
        assert "env.WORD  before -> after" in done.stderr
        state = json.loads(ptx("wait", "again", "--json", timeout=60).stdout)
        assert state["attempts"] == [0, 1]
        assert types(run).count("supervisor_started") == 2
        assert not list(run.glob(".bundle*"))


def test_secrets_are_taken_from_here_and_must_be_set(ptx: Ptx, run: Path) -> None:
    secret = ["--set", "secrets=[MY_TEST_TOKEN]"]
    missing = ptx("resume", "again", *secret)
    assert missing.returncode == 2
    assert "MY_TEST_TOKEN, which is not set here" in missing.stderr
    assert types(run).count("intent") == 1
    tell = "setup=['test \"$MY_TEST_TOKEN\" = word && echo it is there; exit 3']"
    ptx.env |= {"MY_TEST_TOKEN": "word"}
    assert ptx("resume", "again", *secret, "--set", tell).returncode == 0
    ptx("wait", "again")
    log = (run / "attempts" / "001" / "node-0000" / "launcher.log").read_text()
    assert "it is there" in log
