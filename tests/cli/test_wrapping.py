"""Lines are broken between words: a path, an option or a command is never torn."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import MadeRun
from support.ptx import CHECKOUT

from orchestrator.cli.wrapping import wrapped, wrapped_command

HINT = (
    "Start again with `ptx resume lm-7f3a2c --set training.micro-batch=4 --nodes 2`, or look at "
    "/scratch/a-user/ptx-runs/lm-7f3a2c/attempts/000/node-0000/rank-00000.log."
)
COMMAND = "ptx logs lm-7f3a2c-x9-long-name --rank 1 --tail 50"


@pytest.mark.parametrize("columns", [27, 40, 50, 60, 80, 200])
def test_prose_is_broken_between_words(columns: int) -> None:
    told = wrapped(HINT, columns, indent=6)
    assert " ".join(told.split()) == HINT
    first, *rest = told.split("\n")
    for line in (f"      {first}", *rest):
        assert line.startswith("      ") and line[6] != " "
        assert len(line) <= columns or " " not in line.strip()


def test_a_command_stays_on_one_line_where_it_fits() -> None:
    command = re.findall(r"`.*`", HINT)[0]
    assert any(command in line for line in wrapped(HINT, 80).split("\n"))
    assert not any(command in line for line in wrapped(HINT, 60).split("\n"))


def test_without_a_terminal_nothing_is_broken_and_on_a_tiny_one_neither() -> None:
    assert wrapped(HINT, None) == wrapped(HINT, 25, indent=6) == HINT
    assert wrapped_command(COMMAND, None, indent=6) == COMMAND
    assert wrapped("", 80) == ""


@pytest.mark.parametrize("columns", [30, 40, 50, 56, 60])
def test_a_command_that_is_broken_can_be_pasted_into_a_shell(columns: int) -> None:
    told = wrapped_command(COMMAND, columns, indent=6)
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {told}"], capture_output=True, text=True
    )
    assert echoed.stdout.split() == COMMAND.split()
    for number, line in enumerate(told.split("\n")):
        assert len(line) + (0 if number else 6) <= columns or " " not in line.strip(" \\")


@pytest.mark.parametrize("columns", [40, 60])
def test_the_pages_and_hints_tear_nothing(columns: int, tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "a-long-folder" / "runs-of-ann", "lm-7f3a2c").failed()
    text = ""
    for argv in (["why"], ["status"], ["metrics"], ["logs", "--rank", "99"]):
        text += shown(columns, argv[0], str(run.layout.root), *argv[1:])
    paths = re.findall(r"\S*a-long-folder\S*", text)
    assert len(paths) > 3
    assert all("/a-long-folder/runs-of-ann/lm-7f3a2c" in path for path in paths)
    assert not re.search(r"(?m)(?:^|\s)-{1,2}$", text)


def test_a_verdict_on_a_host_of_a_long_name_fits_a_terminal(tmp_path: Path) -> None:
    host = "gpu-node-0001.cluster.research.a-long-institute.example.org"
    device = "GPU-8f2e6c1a-77aa-4d52-9d0f-0f2b1ad07c11"
    run = MadeRun(tmp_path, "r-aaaaaa").submitted()
    run.event(2, "node_started", attempt=0, node=0, host=host, pid=1)
    run.layout.node(0, 0).mkdir(parents=True)
    record = {"v": 1, "exit_code": 1, "ended": run.created + 20, "device": device, "host": host}
    record["exception"] = {"type": "ValueError", "message": "boom"}
    run.layout.exit_record(0, 0, 1).write_text(json.dumps(record))
    run.ended([0, 1]).over()
    page = shown(80, "why", str(run.layout.root)).partition("next: ")[0]
    assert max(map(len, page.splitlines())) <= 80
    where = page[page.index("\nwhere ") :].splitlines()[1:4]
    assert where == [
        "where     attempt 0, node 0",
        f"          ({host}),",
        f"          {device}",
    ]


@pytest.mark.parametrize("columns", [40, 50, 80])
def test_the_table_of_runs_leaves_out_what_it_has_no_room_for(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_RUNS", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    MadeRun(tmp_path, "quickstart-7f3a2c").failed().metrics(step=190, steps=800, loss=2.16)
    head, row, *_ = shown(columns, "status").splitlines()
    assert len(head) <= columns and len(row) <= columns
    assert head.split() == [
        *("RUN", "STATE", "AGE", "SIZE", "STEP", "LOSS", "REASON")[: 7 if columns == 80 else 2],
        *(() if columns == 80 else ("AGE", "REASON") if columns == 50 else ("REASON",)),
    ]


@pytest.mark.parametrize("columns", [40, 60])
def test_what_top_says_above_its_table_ends_with_a_whole_word(columns: int, tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "quickstart-7f3a2c").completed()
    report = {"step": 190, "steps": 800, "loss": 2.16, "tokens_per_s": 6080.0}
    run.metrics(t=20, **report).metrics(t=30, **{**report, "step": 200})
    whole = shown(200, "top", str(run.layout.root), "--once").splitlines()
    for line, all_of_it in zip(
        shown(columns, "top", str(run.layout.root), "--once").splitlines()[:2], whole, strict=False
    ):
        assert len(line) <= columns
        assert all_of_it == line or all_of_it.startswith(f"{line}  ")


def shown(columns: int, *argv: str) -> str:
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"COLUMNS": str(columns), "NO_COLOR": "1"},
        cwd=CHECKOUT,
    )
    os.close(theirs)
    data = b""
    try:
        while block := os.read(ours, 65536):
            data += block
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    process.wait(60)
    return data.decode().replace("\r\n", "\n")
