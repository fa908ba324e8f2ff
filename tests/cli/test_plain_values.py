"""What typer makes of the words of a command line, with its validators spared and without."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer

from orchestrator.cli import plain_values
from orchestrator.cli.app import COMMANDS, build, load

LINES = [
    ["status"],
    ["status", "--state", "failed", "--state", "live", "--sort", "size", "-n", "3", "--all"],
    ["status", "", "--name", "é", "--since", "2h"],
    ["status", "--limit", "0"],
    ["status", "--limit", "x"],
    ["status", "--name", "\udcff"],
    ["submit", "a.yaml", "--nodes", "2"],
    ["submit"],
    ["logs", "r-1", "--tail", "5", "--rank", "0-3"],
    ["wait"],
    ["why", "@last", "--json"],
]


def parsed(line: list[str]) -> Any:
    command = load(line[0])
    try:
        return command.make_context(line[0], list(line[1:])).params
    except typer.TyperException as error:
        return error.format_message()


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_spared_validator_would_have_said_the_same(
    line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spared = parsed(line)
    monkeypatch.setattr(plain_values, "_sparing", lambda parameter: parameter)
    assert repr(spared) == repr(parsed(line))


def test_every_command_is_listed_and_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(typer.Exit):
            build().make_context("ptx", [name, "--help"]).command.invoke(
                build().make_context("ptx", [name, "--help"])
            )
        assert f"ptx {name}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["status"], ["status", "--state", "failed", "--json"]])
def test_a_table_of_runs_needs_no_pydantic(argv: list[str], tmp_path: Any) -> None:
    code = (
        "import sys; from orchestrator.cli.main import main; "
        f"code = main([*{argv!r}, '--runs', {str(tmp_path)!r}]); "
        "sys.exit(code or 'pydantic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
