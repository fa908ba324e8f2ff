"""What scripts rely on: commands, flags, JSON keys and exit codes, frozen in public.json.

A new key or flag is added to that file; one that is missing breaks somebody's script.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.made_checkpoints import made_checkpoint
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun

from orchestrator import errors
from orchestrator.cli.app import COMMANDS, load
from orchestrator.cli.main import main
from orchestrator.preparation import Choices, prepare
from orchestrator.runs.create import modes_of, write_bundle
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
    "start_step": 0,
    "seconds": 1.0,
}
OPEN = ("schema", "ranks", "restarts", "strategy")
"""What has keys of its own: the spec's schema, ranks, classes of ends, a strategy's settings."""
PUBLIC = json.loads(Path(__file__).with_name("public.json").read_text())


def test_the_commands_and_their_flags_are_the_public_ones() -> None:
    found = {}
    for name in COMMANDS:
        command = load(name)
        verbs = getattr(command, "commands", {})
        found |= {f"{name} {verb}": flags(inner) for verb, inner in verbs.items()}
        if not verbs:
            found[name] = flags(command)
    assert found == PUBLIC["flags"]


def flags(command: Any) -> list[str]:
    params = [param for param in command.params if not getattr(param, "hidden", False)]
    return sorted(option for param in params for option in param.opts if option.startswith("-"))


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
    good = MadeRun(tmp_path / "runs", "good-aaaaaa").completed()
    made_checkpoint(good.layout.root, 10)
    made_checkpoint(good.layout.root, 20)
    bad = MadeRun(tmp_path / "runs", "bad-cccccc").failed().metrics(**METRICS)
    bundle_for(bad, checkout / "jobs" / "hello.yaml")
    cancelled = MadeRun(tmp_path / "runs", "gone-bbbbbb").submitted().event(2, "cancel", user="ann")
    cancelled.event(3, "supervisor_ended", rc=-15)
    hello = str(checkout / "jobs" / "hello.yaml")
    standalone = ["--standalone", "--scheduler", "slurm", "--gpus", "0"]
    return {
        "status": ["status"],
        "status RUN": ["status", "bad"],
        "why": ["why", str(failed_of_two(tmp_path / "other").layout.root)],
        "plot": ["plot", "bad"],
        "top": ["top", "good"],
        "metrics": ["metrics", "bad"],
        "wait": ["wait", "good"],
        "wait (not completed)": ["wait", "gone"],
        "cancel": ["cancel", "gone"],
        "validate": ["validate", hello],
        "submit --dry-run": ["submit", hello, "--dry-run", "--gpus", "0"],
        "submit --array --dry-run": ["submit", hello, *standalone[1:], "--array=2", "--dry-run"],
        "render": ["render", hello, "--gpus", "0"],
        "render --standalone": ["render", hello, *standalone],
        "resume --dry-run": ["resume", "bad", "--dry-run", "--nodes", "1", "--set", "name=x"],
        "checkpoints list": ["checkpoints", "list", "good"],
        "checkpoints verify": ["checkpoints", "verify", "good"],
        "checkpoints convert": ["checkpoints", "convert", "good", "-o", str(tmp_path / "out")],
        "checkpoints prune": ["checkpoints", "prune", "good", "--keep-last", "1"],
        "schema": ["schema"],
        "gpus": ["gpus"],
        "error": ["status", "nothing"],
    }


def failed_of_two(root: Path) -> MadeRun:
    """A root and its echo."""
    run = MadeRun(root, "told-dddddd").submitted().started()
    leave(run, 0, code=-15)
    leave(run, 1, "Traceback (most recent call last):\nValueError: bad batch", code=1)
    return node_ended(run, {0: -15, 1: 1}, first=1).over()


def bundle_for(run: MadeRun, spec: Path) -> None:
    """As if the run had been submitted with this spec."""
    prepared = prepare(spec, Choices(gpus="0"), run.layout.root.parent, run.layout.run_id)
    run.layout.bundle.mkdir()
    write_bundle(run.layout.bundle, prepared.bundle, modes_of(run.layout))


def keys(value: dict[str, Any]) -> list[str]:
    """`metrics.loss`, `runs[].state`: of lists the first item; the spec's schema is its own."""
    found = []
    for key, inner in value.items():
        is_list = isinstance(inner, list)
        first = inner[0] if is_list and inner else inner
        if isinstance(first, dict) and key not in OPEN:
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
