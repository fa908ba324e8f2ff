"""What is installed from the wheel works where the person's own folders have ptx's names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support.ptx import Ptx, exit_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ptx of an environment that holds the wheel; the heavy dependencies are lent by this
    one, whose own editable install of ptx stays out of sight (a .pth is not followed twice)."""
    checkout = Path(__file__).resolve().parent.parent.parent
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "-w", str(folder), str(checkout)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("ptx-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "ptx"


@pytest.fixture
def ptx(installed: Path, tmp_path: Path) -> Ptx:
    """ptx in a folder that has its own `jobs` and `templates` packages on its path."""
    for name in ("jobs", "templates"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    return Ptx(tmp_path / "runs", {"PYTHONPATH": "."}, tmp_path, (str(installed),))


def test_the_wheel_and_not_the_checkout_is_what_runs(ptx: Ptx, installed: Path) -> None:
    python = installed.parent / "python"
    where = subprocess.run(
        [python, "-c", "import orchestrator; print(orchestrator.__file__)"],
        cwd=ptx.cwd,
        env=os.environ | ptx.env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(installed.parent.parent) in where


def test_quickstart_runs_from_the_wheel(ptx: Ptx) -> None:
    run = ptx.submit(
        "jobs/quickstart.yaml",
        "--set",
        "entrypoint.args.steps=4",
        "--set",
        "resources.gpus_per_node=0",
    )
    waited = ptx("wait", run.name, "--timeout", "240s", timeout=300)
    assert waited.returncode == 0, waited.stderr + ptx.story(run)
    assert [record["exit_code"] for record in exit_records(run)] == [0, 0]
