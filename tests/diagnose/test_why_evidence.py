"""The lines that show what `ptx why` says: of groups of exceptions, of crashes, without sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun

from orchestrator.diagnose.verdict import Verdict
from orchestrator.diagnose.why import why
from orchestrator.runs.observe import observe_one


def told(folder: Path, text: str, code: int) -> Verdict:
    """Of a run whose rank 1 printed `text` and ended with `code`."""
    run = MadeRun(folder, "late-aaaaaa").submitted().started()
    leave(run, 1, text, code=code)
    node_ended(run, {0: -15, 1: code}, first=1)
    run.over(message="").event(62, "supervisor_ended", rc=1)
    return why(observe_one(run.layout, ask=False)[0])


def printed(folder: Path, script: str, *options: str) -> tuple[Path, str]:
    """A script, and what it said as it failed."""
    path = folder / "train.py"
    path.write_text(script)
    command = [sys.executable, *options, path]
    return path, subprocess.run(command, capture_output=True, text=True).stderr


GROUP = """\
def work():
    raise {inner}
try:
    work()
except Exception as error:
    first = error
raise ExceptionGroup("several", [first, KeyError("b")])
"""


def test_of_a_group_its_line_and_the_first_exceptions_code_are_shown(tmp_path: Path) -> None:
    path, text = printed(tmp_path, GROUP.format(inner="ValueError('a')"))
    verdict = told(tmp_path, text, 1)
    assert verdict.sentence == (
        "Rank 1 on node 0 (n0) exited with 1: "
        "ExceptionGroup: several (2 sub-exceptions): ValueError: a."
    )
    assert verdict.first is not None and verdict.first.exception == "ExceptionGroup"
    said, code = verdict.evidence
    assert said.text == "  | ExceptionGroup: several (2 sub-exceptions)"
    assert text.splitlines()[(said.line or 0) - 1] == said.text
    assert (code.path, code.line, code.text) == (str(path), 2, "raise ValueError('a')")


def test_of_a_group_without_tracebacks_its_own_code_is_shown(tmp_path: Path) -> None:
    script = "raise ExceptionGroup('several', [ValueError('a'), KeyError('b')])"
    path, text = printed(tmp_path, script)
    assert [(row.path, row.line, row.text) for row in told(tmp_path, text, 1).evidence][1:] == [
        (str(path), 1, script)
    ]


def test_a_rule_knows_an_exception_that_is_in_a_group(tmp_path: Path) -> None:
    _, text = printed(tmp_path, GROUP.format(inner="OSError(28, 'No space left on device')"))
    verdict = told(tmp_path, text, 1)
    assert verdict.rule == "no-space"
    assert verdict.evidence[0].text.endswith("| OSError: [Errno 28] No space left on device")


def test_a_crash_is_shown_where_it_was_and_not_by_what_was_printed_last(tmp_path: Path) -> None:
    script = "import ctypes\ndef inner():\n    ctypes.string_at(0)\ninner()\n"
    path, text = printed(tmp_path, script, "-X", "faulthandler")
    assert "Segmentation fault" in text
    text += "\nExtension modules: numpy._core._multiarray_umath (total: 1)\n"
    verdict = told(tmp_path, text, -11)
    assert verdict.rule == "segfault"
    assert [row.text for row in verdict.evidence] == [f"{path}:3 in inner"]


@pytest.mark.parametrize("code", [-9, -15])
def test_a_stack_of_before_does_not_stand_for_the_last_words_of_a_rank_that_was_killed(
    code: int, tmp_path: Path
) -> None:
    _, text = printed(tmp_path, "import faulthandler\nfaulthandler.dump_traceback()")
    verdict = told(tmp_path, f"{text}saving", code)
    assert [row.text for row in verdict.evidence] == ["saving"]


def test_a_frame_without_its_source_is_shown_without_the_line_after_it(tmp_path: Path) -> None:
    script = "exec(compile('def f():\\n  1/0\\nf()', '/home/ann/gone.py', 'exec'))"
    _, text = printed(tmp_path, script)
    assert "line 2, in f\nZeroDivisionError" in text
    code = told(tmp_path, text, 1).evidence[1]
    assert (code.path, code.line, code.text) == ("/home/ann/gone.py", 2, "")
