"""Hostile text arrives in the rank byte for byte, or is refused; nothing of it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launching import Node, register_plain

from orchestrator.errors import UserError

HOSTILE = [
    "$(touch canary)",
    "`touch canary`",
    "; touch canary #",
    "a'; touch canary; 'b",
    '"; touch canary; "',
    "| touch canary",
    "&& touch canary",
    "-rf",
    "--flag=value",
    "../../etc",
    "%j %% %x",
    "a,b,,c",
    "${HOME} $HOME ~",
    "{{ value }} {% raw %}",
    "\\ \\n trailing\\",
    "é 🚀 日本語",
    "x" * 300,
    " leading and trailing ",
    "",
    "*?[a]",
    "!!",
    "{python}",
    "EOF",
]
FOLDER = 'it\'s $(touch canary) `touch canary`; %j, "é" 🚀 \\ #'
CONTROL = ["a\nb", "a\rb", "a\tb", "a\x1bb", "a\x85b", "a\ud800b"]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    register_plain(monkeypatch)
    return Node(tmp_path / FOLDER)


def assert_no_canary(tmp_path: Path) -> None:
    assert [path for path in tmp_path.rglob("*") if path.name.startswith("canary")] == []


def test_args_env_and_paths_arrive_byte_for_byte(node: Node, tmp_path: Path) -> None:
    done = node.launch(
        {
            "entrypoint": {"script": "dump.py", "args": HOSTILE},
            "env": {f"VALUE_{index}": text for index, text in enumerate(HOSTILE)},
            "launcher": {"name": "plain", "args": [f"--x={text}" for text in HOSTILE]},
        }
    )
    assert done.returncode == 0, done.output
    assert done.seen["argv"] == HOSTILE
    assert [done.seen["env"][f"VALUE_{k}"] for k in range(len(HOSTILE))] == HOSTILE
    assert done.seen["cwd"] == str(node.folder / "work")
    assert_no_canary(tmp_path)


def test_args_given_as_a_mapping_arrive_byte_for_byte(node: Node, tmp_path: Path) -> None:
    args: dict[str, Any] = {text: text for text in HOSTILE if text}
    done = node.launch({"entrypoint": {"script": "dump.py", "args": args | {"many": HOSTILE}}})
    assert done.returncode == 0, done.output
    assert done.seen["argv"] == [f"--{k}={v}" for k, v in args.items()] + ["--many", *HOSTILE]
    assert_no_canary(tmp_path)


def test_a_hostile_command_is_the_command(node: Node, tmp_path: Path) -> None:
    command = node.folder / "$(touch canary); run"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho it ran\n")
    command.chmod(0o755)
    done = node.launch({"entrypoint": {"command": [str(command)]}})
    assert done.returncode == 0
    assert "it ran" in done.output
    assert_no_canary(tmp_path)


@pytest.mark.parametrize("text", CONTROL)
@pytest.mark.parametrize(
    "spec",
    [
        {"entrypoint": {"command": ["run", "HERE"]}},
        {"entrypoint": {"script": "HERE"}},
        {"env": {"A": "HERE"}},
        {"setup": ["HERE"]},
        {"python": "HERE"},
        {"workdir": "HERE"},
        {"launcher": {"name": "plain", "args": ["--HERE"]}},
    ],
)
def test_control_characters_are_refused_wherever_they_stand(
    node: Node, spec: dict[str, Any], text: str
) -> None:
    def put(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("HERE", text)
        if isinstance(value, list):
            return [put(item) for item in value]
        return {key: put(item) for key, item in value.items()}

    # The spec's own patterns refuse most of them already, with a ValueError of pydantic.
    with pytest.raises((UserError, ValueError)):
        node.render(put(spec))


def test_a_folder_whose_name_is_no_utf8_is_refused(node: Node) -> None:
    node.folder = node.folder.parent / "latin-\udce9"
    with pytest.raises(UserError, match=r"UTF-8|U\+DCE9"):
        node.render({"workdir": "/"})


@pytest.mark.parametrize(
    "name",
    ["RANK", "MASTER_PORT", "PTX_RUN_ID", "PET_NNODES", "SLURM_JOB_ID", "UID", "IFS", "RANDOM"],
)
def test_names_that_would_not_arrive_are_refused(node: Node, name: str) -> None:
    with pytest.raises(UserError, match=name):
        node.render({"env": {name: "1"}})
    with pytest.raises(UserError, match=name):
        node.render({"secrets": [name]})


@pytest.mark.parametrize(
    "args",
    [
        ["--owned-flag=1"],
        ["--owned_flag", "1"],
        ["--own"],
        ["-o"],
        ["script.py"],
        ["--"],
        ["--a=1", "b"],
    ],
)
def test_launcher_args_that_are_ptx_s_own_or_no_flags_are_refused(
    node: Node, args: list[str]
) -> None:
    with pytest.raises(UserError, match=r"launcher\.args"):
        node.render({"launcher": {"name": "plain", "args": args}})


def test_an_unknown_launcher_is_refused_with_those_that_there_are(node: Node) -> None:
    with pytest.raises(UserError) as caught:
        node.render({"launcher": "$(touch canary)"})
    assert "torchrun" in (caught.value.hint or "")
