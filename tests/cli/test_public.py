"""What scripts rely on: commands, flags, JSON keys and exit codes, frozen in public.json.

A new key or flag is added to that file; one that is missing breaks somebody's script.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import MadeRun

from orchestrator import errors
from orchestrator.cli.app import COMMANDS, load
from orchestrator.cli.main import main
from orchestrator.runs.state import State

# The record of docs/architecture.md, as rank 0 writes it.
METRICS: dict[str, Any] = {
    "step": 1,
    "steps": 2,
    "epoch": 0,
    "loss": 1.5,
    "lr": 1e-3,
    "grad_norm": None,
    "tokens_per_s": 10.0,
    "samples_per_s": 1.0,
    "memory_bytes": None,
}
PUBLIC = json.loads(Path(__file__).with_name("public.json").read_text())


def test_the_commands_and_their_flags_are_the_public_ones() -> None:
    flags = {}
    for command in COMMANDS:
        params = [param for param in load(command).params if not getattr(param, "hidden", False)]
        flags[command] = sorted(
            option for param in params for option in param.opts if option.startswith("-")
        )
    assert flags == PUBLIC["flags"]


def test_the_exit_codes_are_the_public_ones() -> None:
    kinds = [errors.UserError, *errors.UserError.__subclasses__()]
    ours = {kind.code: kind.exit_code for kind in kinds if kind.__module__ == errors.__name__}
    assert ours == PUBLIC["exit_codes"]


def test_the_states_are_the_public_ones() -> None:
    assert [state.value for state in State] == PUBLIC["states"]


@pytest.fixture
def commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> dict[str, list[str]]:
    """One way to call each command that prints its JSON and ends at once."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "runs"))
    MadeRun(tmp_path / "runs", "good-aaaaaa").completed()
    MadeRun(tmp_path / "runs", "bad-cccccc").failed().metrics(**METRICS)
    cancelled = MadeRun(tmp_path / "runs", "gone-bbbbbb").submitted().event(2, "cancel", user="ann")
    cancelled.event(3, "supervisor_ended", rc=-15)
    hello = str(checkout / "jobs" / "hello.yaml")
    standalone = ["--standalone", "--scheduler", "slurm", "--gpus", "0"]
    return {
        "status": ["status"],
        "status RUN": ["status", "bad"],
        "wait": ["wait", "good"],
        "wait (not completed)": ["wait", "gone"],
        "cancel": ["cancel", "gone"],
        "validate": ["validate", hello],
        "submit --dry-run": ["submit", hello, "--dry-run", "--gpus", "0"],
        "render": ["render", hello, "--gpus", "0"],
        "render --standalone": ["render", hello, *standalone],
        "schema": ["schema"],
        "gpus": ["gpus"],
        "error": ["status", "nothing"],
    }


def keys(value: dict[str, Any]) -> list[str]:
    """`metrics.loss`, `runs[].state`: of lists the first item; the spec's schema is its own."""
    found = []
    for key, inner in value.items():
        is_list = isinstance(inner, list)
        first = inner[0] if is_list and inner else inner
        if isinstance(first, dict) and key not in ("schema", "ranks"):
            found += [f"{key}{'[]' if is_list else ''}.{below}" for below in keys(first)]
        else:
            found.append(key)
    return found


def test_the_json_of_every_command_has_the_public_keys(
    commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}
    for name, argv in commands.items():
        main([*argv, "--json"])
        told = json.loads(capsys.readouterr().out)
        assert told["v"] == 1
        seen[name] = keys(told)
    assert seen == PUBLIC["json"]
