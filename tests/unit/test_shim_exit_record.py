"""What a rank's last words say about why it ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.agent.exit_record import find_exception


def stderr_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("1/0", "ZeroDivisionError", "division by zero"),
        ("raise KeyError('a')", "KeyError", "'a'"),
        ("assert False", "AssertionError", ""),
        ("raise RuntimeError('two\\nlines')", "RuntimeError", "two\nlines"),
        (
            "import subprocess; subprocess.run(['false'], check=True)",
            "subprocess.CalledProcessError",
            "Command '['false']' returned non-zero exit status 1.",
        ),
        ("try:\n  1/0\nexcept Exception as e:\n  raise OSError('disk') from e", "OSError", "disk"),
        ("try:\n  1/0\nexcept Exception:\n  {}['k']", "KeyError", "'k'"),
        ("import sys; sys.stderr.write('x: y\\n'); raise ValueError('é')", "ValueError", "é"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("x = (", "SyntaxError", "'(' was never closed"),
    ],
)
def test_the_exception_of_a_real_traceback(code: str, kind: str, message: str) -> None:
    assert find_exception(stderr_of(code)) == {"type": kind, "message": message}


def test_the_rank_prefix_of_torch_is_no_part_of_it() -> None:
    plain = stderr_of("raise RuntimeError('two\\nlines')")
    prefixed = "".join(f"[rank3]: {line}\n" for line in plain.splitlines())
    assert find_exception(prefixed) == {"type": "RuntimeError", "message": "two\nlines"}


def test_what_follows_a_traceback_is_not_its_message() -> None:
    text = stderr_of("1/0") + "\n[W1121 ProcessGroup.cpp:12] Warning: destroyed\n"
    assert find_exception(text) == {"type": "ZeroDivisionError", "message": "division by zero"}


def test_a_traceback_behind_an_open_progress_bar_is_one(tmp_path: Path) -> None:
    code = """
import sys
sys.stderr.write("\\r 40%|████      | 4/10 [00:00<00:00, 8.23it/s]")
try:
    raise ValueError("bad batch")
finally:
    import atexit
    atexit.register(lambda: sys.stderr.write("\\r 40%|████ | 4/10 [00:00<00:00, 9.1it/s]\\n"))
"""
    script = tmp_path / "bar.py"
    script.write_text(code)
    said = subprocess.run([sys.executable, script], capture_output=True).stderr.decode()
    assert "it/s]Traceback" in said and said.endswith("\r 40%|████ | 4/10 [00:00<00:00, 9.1it/s]\n")
    assert find_exception(said) == {"type": "ValueError", "message": "bad batch"}


def test_the_last_of_several_tracebacks_counts() -> None:
    text = stderr_of("1/0") + "going on\n" + stderr_of("raise OSError(28, 'No space')")
    assert find_exception(text) == {"type": "OSError", "message": "[Errno 28] No space"}


def test_a_traceback_whose_beginning_is_lost_still_names_the_exception() -> None:
    text = stderr_of("1/0").split("\n", 1)[1]
    assert find_exception(text) == {"type": "ZeroDivisionError", "message": "division by zero"}


@pytest.mark.parametrize("text", ["", "loss: 3.1\n", "Error: bad flag\n", "Killed\n", "\0\xff"])
def test_no_traceback_is_no_exception(text: str) -> None:
    assert find_exception(text) is None
