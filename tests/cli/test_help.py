"""What the command line says about itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import MadeRun
from support.ptx import CHECKOUT, Ptx

from orchestrator.cli.app import COMMANDS, load
from orchestrator.cli.main import main


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs")


def commands() -> list[str]:
    """All that end in an action: `status`, `checkpoints list`."""
    verbs = {name: list(getattr(load(name), "commands", {})) for name in COMMANDS}
    return [f"{name} {verb}".strip() for name in COMMANDS for verb in verbs[name] or [""]]


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    told = capsys.readouterr()
    assert f"Examples:\n    ptx {command}" in told.out
    assert "--json" in told.out
    assert told.err == ""


def test_ptx_alone_prints_its_help(ptx: Ptx) -> None:
    alone, helped = ptx(), ptx("--help")
    assert alone.stdout == helped.stdout
    assert (alone.returncode, helped.returncode, alone.stderr) == (0, 0, "")
    for command, line in COMMANDS.items():
        assert command in helped.stdout and line in helped.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from orchestrator.cli.main import main; main(['--help']);"
        "heavy = {'pydantic', 'yaml', 'rich', 'jinja2', 'submitit', 'torch', 'pynvml', 'asyncio'};"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_status_imports_no_spec_and_no_scheduler(ptx: Ptx) -> None:
    code = (
        "import sys; from orchestrator.cli.main import main; main(['status']);"
        "heavy = {'yaml', 'rich', 'jinja2', 'submitit', 'orchestrator.spec.job'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    ptx.argv = (sys.executable, "-c", code)
    ptx.env["XDG_STATE_HOME"] = str(ptx.runs)  # else it lists what other tests have registered
    assert ptx().stdout == "[]\n"


def test_the_version_is_the_packages(ptx: Ptx) -> None:
    assert ptx.ok("--version") == "ptx 0.1.0\n"
    assert json.loads(ptx.ok("--version", "--json")) == {"v": 1, "version": "0.1.0"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["statsu"], "Did you mean 'status'?"),
        (["status", "--jsno"], "--json"),
        (["submit"], "Missing argument 'SPEC'"),
        (["submit", "a.yaml", "--nodes", "two"], "--nodes"),
        (["wait", "r", "--timeout", "soon"], "--timeout 'soon' is not a time"),
        (["submit", "a.yaml", "--follow", "--dry-run"], "--follow and --dry-run"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_is_meant(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err and told.err.startswith("error: ")
    assert "Traceback" not in told.err

    assert main([*argv, "--json"]) == 2
    told = capsys.readouterr()
    error = json.loads(told.out)["error"]
    assert error["code"] == "usage" and said in error["message"]
    assert set(error) == {"code", "message", "hint", "diagnostics"}


def test_json_after_two_dashes_is_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--", "--json"]) == 3
    assert "no run '--json'" in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback_and_no_failed_job(ptx: Ptx) -> None:
    for number in range(300):
        MadeRun(ptx.runs, f"r-{number:06d}").completed()
    for args in (["status", "--runs", str(ptx.runs)], ["--help"], ["schema"]):
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(
            [*ptx.argv, *args], cwd=CHECKOUT, stdout=theirs, stderr=subprocess.PIPE, text=True
        )
        os.close(theirs)
        assert (done.returncode, done.stderr.replace("next: ptx status r-000299\n", "")) == (
            141,
            "",
        )


@pytest.mark.parametrize("command", ["why", "logs", "top", "metrics", "plot", "wait"])
def test_who_names_no_run_is_told_of_the_newest(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    assert f"`ptx {command} @last` takes the newest run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["cancel", "resume"])
def test_nobody_is_told_to_change_whatever_run_is_the_newest(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    assert "@last" not in capsys.readouterr().err
