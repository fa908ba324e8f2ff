"""The rules of who may import whom, and what start-up must not load."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HEAVY = ("torch", "submitit", "jinja2", "pydantic", "yaml", "pynvml", "rich", "numpy")


@pytest.mark.slow
def test_the_import_rules_hold(checkout: Path) -> None:
    tool = Path(sysconfig.get_path("scripts")) / "lint-imports"
    done = subprocess.run([tool, "--no-cache"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["submit", "--help"]])
def test_help_loads_nothing_heavy(argv: list[str], checkout: Path) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import main\n"
        f"sys.argv = ['ptx', *{argv!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True
    )
    assert "Usage" in done.stdout
    assert done.stderr.strip() == "[]"
