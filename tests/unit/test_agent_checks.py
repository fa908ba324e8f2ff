"""What only the node can know, said in a sentence before anything starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.checks import problems, script_of
from orchestrator.agent.devices import device_list


def found(tmp_path: Path, env: dict[str, str] | None = None, **plan: Any) -> list[str]:
    whole = {
        "gpus_per_node": 0,
        "rendezvous": {"interface": None},
        "workdir": str(tmp_path),
        "entrypoint": ["true"],
        **plan,
    }
    return list(problems(whole, env or {}))


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        (None, []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,1", ["0", "1"]),
        ("3, 1 ,-1,2", ["3", "1"]),
        ("GPU-a,MIG-b/1/0", ["GPU-a", "MIG-b/1/0"]),
    ],
)
def test_devices_are_read_as_cuda_reads_them(value: str | None, devices: list[str]) -> None:
    assert device_list(value) == devices


@pytest.mark.parametrize("value", ["", "0", "0,1,2"])
def test_too_few_devices_are_named(tmp_path: Path, value: str) -> None:
    (sentence,) = found(tmp_path, {"CUDA_VISIBLE_DEVICES": value}, gpus_per_node=4)
    assert "wants 4 a node" in sentence
    assert f"shows {len(device_list(value))} GPUs" in sentence
    assert os.uname().nodename in sentence


def test_as_many_devices_as_wanted_or_more_are_fine(tmp_path: Path) -> None:
    env = {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c"}
    assert found(tmp_path, env, gpus_per_node=2) == []
    assert found(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}, gpus_per_node=0) == []


@pytest.mark.parametrize("name", ["lo", "l", "=lo", "^docker0,nosuch"])
def test_an_interface_that_is_there_is_fine(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, rendezvous={"interface": name}) == []


def test_an_interface_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (sentence,) = found(tmp_path, rendezvous={"interface": "lo,nosuch0"})
    assert "no network interface nosuch0" in sentence
    assert "lo" in sentence.partition("it has")[2]


def test_a_missing_working_directory_is_said_once(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    (sentence,) = found(tmp_path, workdir=gone, entrypoint=["{python}", "a.py"])
    assert f"cannot enter the working directory {gone}" in sentence


def test_a_working_directory_that_cannot_even_be_looked_at_is_no_crash(tmp_path: Path) -> None:
    """As one below a folder that may not be entered; this way root cannot enter either."""
    (sentence,) = found(tmp_path, workdir=str(tmp_path / ("d" * 300)))
    assert "cannot enter the working directory" in sentence


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    (sentence,) = found(tmp_path, entrypoint=["{python}", "-u", "train.py", "--x"])
    assert f"cannot read the script {tmp_path}/train.py" in sentence
    (tmp_path / "train.py").touch()
    assert found(tmp_path, entrypoint=["{python}", "-u", "train.py", "--x"]) == []


@pytest.mark.parametrize(
    "entrypoint", [["{python}", "-m", "a.py"], ["bash", "x.sh"], ["{python}", "-c", "x"], []]
)
def test_other_commands_have_no_script(entrypoint: list[str]) -> None:
    assert script_of(entrypoint) is None
