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


BARS = ("bar 19", "\rEpoch 3 [====>     ] ", "step 40 loss 2.1 [rank3]: ", "Loading: \\ ")


@pytest.mark.parametrize("bar", BARS)
def test_any_text_without_an_end_of_line_may_stand_before_a_traceback(bar: str) -> None:
    text = bar + stderr_of("raise KeyError('labels')")
    assert find_exception(text) == {"type": "KeyError", "message": "'labels'"}


ORIGINAL = """RuntimeError: Caught ValueError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/x/loader.py", line 3, in take
    raise ValueError("bad sample")
ValueError: bad sample
"""


def test_a_traceback_that_is_quoted_is_part_of_the_message() -> None:
    text = 'Traceback (most recent call last):\n  File "/x/train.py", line 9, in <module>\n'
    found = find_exception(text + ORIGINAL)
    assert found is not None and found["type"] == "RuntimeError"


@pytest.mark.parametrize("prefix", ["(train pid=71) ", "ERROR:root: "])
def test_where_each_line_has_a_prefix_of_its_own_no_traceback_begins(prefix: str) -> None:
    lines = [prefix + line for line in stderr_of("1/0").splitlines()]
    assert find_exception("\n".join([*lines, ""])) is None


DESTRUCTOR = "class A:\n  def __del__(self): self.missing\na = A()\n"


@pytest.mark.parametrize("first", ["", "print(1)\ndel a\n"])
def test_what_a_destructor_raises_is_ignored_as_python_does(first: str) -> None:
    """One may come before the exception that counts, or when the interpreter leaves."""
    stderr = stderr_of(DESTRUCTOR + first + "raise ValueError('no shard')")
    assert "Exception ignored in" in stderr and "AttributeError" in stderr
    assert find_exception(stderr) == {"type": "ValueError", "message": "no shard"}
    assert find_exception(stderr_of(DESTRUCTOR + first + "import os; raise SystemExit(3)")) is None


def test_the_last_of_several_tracebacks_counts() -> None:
    text = stderr_of("1/0") + "going on\n" + stderr_of("raise OSError(28, 'No space')")
    assert find_exception(text) == {"type": "OSError", "message": "[Errno 28] No space"}


def test_a_traceback_whose_beginning_is_lost_still_names_the_exception() -> None:
    text = stderr_of("1/0").split("\n", 1)[1]
    assert find_exception(text) == {"type": "ZeroDivisionError", "message": "division by zero"}


@pytest.mark.parametrize("text", ["", "loss: 3.1\n", "Error: bad flag\n", "Killed\n", "\0\xff"])
def test_no_traceback_is_no_exception(text: str) -> None:
    assert find_exception(text) is None


GROUP = "raise ExceptionGroup('several', [ValueError('a'), KeyError('b')])"
TASKS = """
import asyncio
async def load(): {}['shard']
async def main():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load())
asyncio.run(main())
"""
NESTED = """
try:
    try: {}['x']
    except KeyError as error: raise ValueError('bad') from error
except ValueError as error: inner = error
raise ExceptionGroup('outer', [ExceptionGroup('within', [inner, inner]), OSError('disk')])
"""
CHAINED = """
try: 1/0
except Exception as error: raise ExceptionGroup('g', [OSError('disk')]) from error
"""
LINES = """
try: 1/0
except Exception as error: second = error
raise ExceptionGroup('two\\nlines', [OSError('disk\\nis full'), second])
"""


@pytest.mark.parametrize("prefix", ["", "[rank3]: "])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (GROUP, "several (2 sub-exceptions): ValueError: a"),
        (TASKS, "unhandled errors in a TaskGroup (1 sub-exception): KeyError: 'shard'"),
        (
            NESTED,
            "outer (2 sub-exceptions): ExceptionGroup: within (2 sub-exceptions): ValueError: bad",
        ),
        (CHAINED, "g (1 sub-exception): OSError: disk"),
        (LINES, "two\nlines (2 sub-exceptions): OSError: disk\nis full"),
    ],
    ids=["plain", "tasks", "nested", "chained", "lines"],
)
def test_a_group_is_named_with_the_first_exception_in_it(
    code: str, message: str, prefix: str
) -> None:
    said = "".join(f"{prefix}{line}\n" for line in stderr_of(code).splitlines())
    assert find_exception(said) == {"type": "ExceptionGroup", "message": message}


def test_an_exception_that_came_after_a_group_is_the_last_one() -> None:
    said = stderr_of(f"try: {GROUP}\nexcept Exception: raise OSError('disk')")
    assert find_exception(said) == {"type": "OSError", "message": "disk"}
    said = stderr_of(
        f"import traceback\ntry: {GROUP}\nexcept Exception: traceback.print_exc()\n1/0"
    )
    assert find_exception(said) == {"type": "ZeroDivisionError", "message": "division by zero"}


def test_of_a_group_whose_beginning_is_lost_an_exception_in_it_is_named() -> None:
    said = stderr_of(TASKS)
    lost = said.index("    | Traceback (most recent call last):")
    assert find_exception(said[lost:]) == {"type": "KeyError", "message": "'shard'"}


def test_groups_without_end_are_read_as_far_as_python_prints_them() -> None:
    level = "  | ExceptionGroup: g (1 sub-exception)\n  +-+---------------- 1 ----------------\n"
    found = find_exception("  + Exception Group Traceback (most recent call last):\n" + level * 999)
    assert found is not None
    assert found["message"].count("ExceptionGroup") == 9


def test_a_row_of_bars_is_read_in_time_that_grows_with_its_length() -> None:
    """Else this test does not end."""
    assert find_exception(f"|{' |' * 1000} Traceback of nothing\n") is None
