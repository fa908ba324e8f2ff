"""A spec where a run was meant: the way out is said, whatever the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.made_runs import MadeRun

from orchestrator.cli.main import main

COMMANDS = (
    *(["status"], ["why"], ["logs"], ["top"], ["metrics"], ["plot"], ["wait"], ["cancel"]),
    *(["resume"], ["checkpoints", "list"]),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "a.yaml").write_text("# comment\nname: 'lm'  # the name\nentrypoint: x.py\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_names_the_newest_run_of_the_spec(
    command: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(here / "runs", "lm-aaaaaa").completed()
    MadeRun(here / "runs", "lm-bbbbbb", created=1_700_000_500).completed()
    MadeRun(here / "runs", "other-cccccc", created=1_700_000_900).completed()
    assert main([*command, "a.yaml"]) == 3
    assert capsys.readouterr().err == (
        "error: a.yaml is a spec, and a run is wanted here.\n"
        "hint: The newest of its 2 runs is lm-bbbbbb; `ptx submit a.yaml` starts another.\n"
    )


@pytest.mark.parametrize("text", ["a.yaml", "./a.yaml", "gone/lm.yml", "jobs/quickstart.yaml"])
def test_one_that_never_ran_can_be_submitted(
    text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(here / "runs", "other-cccccc").completed()
    assert main(["status", text, "--json"]) == 3
    hint = json.loads(capsys.readouterr().out)["error"]["hint"]
    assert hint == f"`ptx submit {text}` starts one; there is no run of it yet."


def test_a_spec_without_a_readable_name_is_known_by_its_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(here / "runs", "odd-aaaaaa").completed()
    (here / "odd.yaml").write_bytes(b"\xff\xfename: [\0")
    assert main(["why", "odd.yaml"]) == 3
    assert "Its only run is odd-aaaaaa;" in capsys.readouterr().err


def test_one_run_that_is_none_ends_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = MadeRun(here / "runs", "lm-aaaaaa").supervised().started()
    assert main(["cancel", "lm-aaaaaa", "a.yaml"]) == 3
    assert "Nothing was cancelled." in capsys.readouterr().err
    assert "cancel" not in (run.layout.events / "made.jsonl").read_text()


def test_a_run_folder_may_be_called_what_it_likes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(here / "kept.yaml", "lm-aaaaaa").completed()
    assert main(["status", "kept.yaml/lm-aaaaaa"]) == 0


@pytest.mark.parametrize("text", ["lm-aaaaaa", "@last", "runs/lm-aaaaaa"])
@pytest.mark.parametrize("command", ["submit", "validate", "render"])
def test_a_run_where_a_spec_was_meant_is_told_so_too(
    command: str, text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(here / "runs", "lm-aaaaaa").completed()
    assert main([command, text]) == 2
    assert capsys.readouterr().err == (
        f"error: {text} is a run, and a spec is wanted here.\n"
        "hint: `ptx resume lm-aaaaaa` starts it again, `ptx status lm-aaaaaa` shows its spec.\n"
    )


def test_the_beginning_of_a_run_is_the_name_of_a_spec_that_is_missing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeRun(here / "runs", "lm-aaaaaa").completed()
    assert main(["submit", "lm"]) == 2
    assert "there is no such file" in capsys.readouterr().err
