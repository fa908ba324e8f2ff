"""agent.pyz: the same bytes always, and enough to run by itself."""

from __future__ import annotations

import ast
import builtins
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import orchestrator.agent
from orchestrator.agent.archive import agent_archive

SOURCES = Path(orchestrator.agent.__file__).parent


def test_the_bytes_depend_on_the_sources_alone(tmp_path: Path) -> None:
    copy = tmp_path / "orchestrator" / "agent"
    copy.parent.mkdir()
    (copy.parent / "__init__.py").touch()
    shutil.copytree(SOURCES, copy)
    for path in copy.glob("*.py"):
        path.chmod(0o755)
        os.utime(path, (1, 1))
    code = (
        "import sys; from orchestrator.agent.archive import agent_archive; "
        "sys.stdout.buffer.write(agent_archive())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.stdout == agent_archive(), done.stderr.decode()


def test_it_holds_the_agent_and_nothing_else_of_ptx() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as archive:
        names = archive.namelist()
        assert archive.read("orchestrator/__init__.py") == b""
    assert names == sorted(names)
    assert "orchestrator/agent/archive.py" not in names
    assert {str(Path(name).parent) for name in names} == {".", "orchestrator", "orchestrator/agent"}


def test_it_runs_without_site_packages_and_environment(tmp_path: Path) -> None:
    (tmp_path / "agent.pyz").write_bytes(agent_archive())
    argv = [sys.executable, "-I", "-S", "agent.pyz"]
    done = subprocess.run(argv, cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: agent.pyz node")


def test_the_python_of_a_cluster_of_some_age_can_run_it() -> None:
    """3.9 is what Enterprise Linux 9 has. Types joined by | are evaluated outside annotations."""
    types = {name for name, value in vars(builtins).items() if isinstance(value, type)} | {"None"}
    for path in SOURCES.glob("*.py"):
        tree = ast.parse(path.read_bytes(), path.name, feature_version=(3, 9))
        notes = {
            id(inner)
            for node in ast.walk(tree)
            for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
            if note is not None
            for inner in ast.walk(note)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
                joined = {ast.unparse(node.left), ast.unparse(node.right)}
                assert id(node) in notes or not joined & types, f"{path.name}:{node.lineno}"


def test_an_older_python_is_told_what_is_needed() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as archive:
        main = archive.read("__main__.py").decode()
    start = main.partition("from orchestrator")[0]
    assert "from __future__" not in start  # 3.6 would stumble over that before it says anything
    said = "import sys; sys.version_info = (3, 6, 8)\n" + start
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip().endswith("the agent needs 3.9")) == (1, True)


def test_a_shim_starts_without_the_costly_modules(tmp_path: Path) -> None:
    (tmp_path / "agent.pyz").write_bytes(agent_archive())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import orchestrator.agent.shim; "
        "print(*sorted({'subprocess', 'typing', 'dataclasses', 'pathlib', 'json', 'socket', "
        "'inspect', 'logging', 'threading', 'zlib'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "agent.pyz")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "\n"
