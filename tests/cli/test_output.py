"""The small words of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import MadeRun

from orchestrator.cli.options import seconds
from orchestrator.cli.output import duration, size, table
from orchestrator.errors import UserError


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (86400, "1d00h"),
        (90061, "1d01h"),
    ],
)
def test_durations_are_two_units(given: float, told: str) -> None:
    assert duration(given) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 30, "1.0 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_sizes_have_a_unit(given: int, told: str) -> None:
    assert size(given) == told


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("0.5s", 0.5), ("15m", 900), ("2h", 7200), ("1d", 86400)]
)
def test_a_time_may_have_a_unit(text: str, value: float) -> None:
    assert seconds(text, "--timeout") == value


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1w", "1 h", "1e3", "nan", "inf", "1m30s", "\u0661"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a time"):
        seconds(text, "--timeout")


def test_columns_are_aligned_and_nothing_trails() -> None:
    text = table(("A", "LONGER"), [("value", "x"), ("v", "")])
    assert text == "A      LONGER\nvalue  x\nv"


@pytest.mark.parametrize("command", [["--version"], ["schema"], ["status", "nothing"]])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_onto_a_full_disk_is_one_sentence(
    tmp_path: Path, command: list[str], more: list[str]
) -> None:
    argv = [sys.executable, "-m", "orchestrator.cli.main", *command, *more]
    env = os.environ | {"PTX_RUNS": str(tmp_path / "runs"), "XDG_STATE_HOME": str(tmp_path)}
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(argv, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in ended.stderr
    told_on_stderr_alone = command[-1] == "nothing" and not more
    assert ended.returncode == (3 if told_on_stderr_alone else 2), ended.stderr
    if not told_on_stderr_alone:
        assert "No space left on device" in ended.stderr


_CLOSED = ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-")


def _redirected(where: str, *command: str, root: Path) -> subprocess.CompletedProcess[bytes]:
    """As a shell starts `ptx command where`."""
    line = f'exec "$@" {where}'
    argv = ["sh", "-c", line, "sh", sys.executable, "-m", "orchestrator.cli.main", *command]
    env = os.environ | {"PTX_RUNS": str(root), "XDG_STATE_HOME": str(root.parent)}
    return subprocess.run(argv, env=env, capture_output=True)


@pytest.mark.parametrize("where", _CLOSED)
def test_exit_codes_do_not_depend_on_who_reads(tmp_path: Path, where: str) -> None:
    root = tmp_path / "runs"
    MadeRun(root, "done-111111").completed()
    MadeRun(root, "bad-222222").failed()
    for command, code in [
        (["status"], 0),
        (["status", "nothing"], 3),
        (["wait", "done-111111"], 0),
        (["wait", "bad-222222"], 1),
        (["logs", "done-111111"], 0),
        (["status", "--nonsense"], 2),
        (["--help"], 0),
    ]:
        ended = _redirected(where, *command, root=root)
        assert ended.returncode == code, ended.stderr
        assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("where", _CLOSED)
def test_nothing_is_printed_into_a_file_that_got_a_closed_descriptor(
    tmp_path: Path, where: str
) -> None:
    """Nor by a child, which has the same three."""
    program = (
        "import os, subprocess, sys\n"
        "from orchestrator.cli.main import main\n"
        "assert main(['--version']) == 0\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "print('out'), print('err', file=sys.stderr), sys.stdin.fileno()\n"
        "subprocess.run(['sh', '-c', 'read x; echo out; echo err >&2'], check=False)\n"
        "sys.exit(0 if file.fileno() > 2 else 9)\n"
    )
    argv = ["sh", "-c", f'exec "$@" {where}', "sh", sys.executable, "-c", program]
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
    assert (ended.returncode, (tmp_path / "file").read_bytes()) == (0, b""), ended.stderr
    assert ended.stdout.count(b"out") == (0 if "1>&-" in where else 2)
    assert ended.stderr.count(b"err") == (0 if "2>&-" in where else 2)
