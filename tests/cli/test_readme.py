"""What the README says is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.ptx import CHECKOUT, Ptx

README = (CHECKOUT / "README.md").read_text()


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs")


def test_the_spec_in_the_readme_is_valid(ptx: Ptx, tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "train.py").write_text("print('training')\n")
    spec = tmp_path / "finetune.yaml"
    spec.write_text(block)
    ptx.ok("validate", str(spec))


def test_every_command_and_flag_in_the_readme_exists(ptx: Ptx) -> None:
    table = README.split("## Commands")[1].split("## ")[0]
    commands = set(re.findall(r"`ptx (\w+)", table))
    assert len(commands) >= 9
    for command in commands:
        group = ["list"] if command == "checkpoints" else []
        help_ = ptx.ok(command, *group, "--help")
        assert "--json" in help_, command
        row = next(line for line in table.splitlines() if f"`ptx {command}" in line)
        for flag in re.findall(r"--[a-z-]+", row.split("·")[0]):
            assert flag in help_, f"{command} {flag}"


def test_every_file_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (CHECKOUT / link).exists()] == []
