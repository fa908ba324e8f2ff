"""The rules of who may import whom, and what start-up must not load."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HEAVY = {"torch", "submitit", "jinja2", "yaml", "pynvml", "rich", "numpy"}


@pytest.mark.slow
def test_the_import_rules_hold(checkout: Path) -> None:
    tool = Path(sysconfig.get_path("scripts")) / "lint-imports"
    done = subprocess.run([tool, "--no-cache"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Typer itself reads the options of a command with pydantic; the list of commands needs no option.
@pytest.mark.parametrize(
    ("words", "heavy"), [(["--help"], {*HEAVY, "pydantic"}), (["submit", "--help"], HEAVY)]
)
def test_help_loads_nothing_heavy(words: list[str], heavy: set[str], checkout: Path) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import main\n"
        f"main({words!r})\n"
        f"print(sorted(set(sys.modules) & {heavy!r}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True
    )
    assert "Usage" in done.stdout
    assert done.stderr.strip() == "[]"
