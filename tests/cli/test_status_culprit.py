"""Whom `ptx status RUN` and `submit --follow` show of a failed run: who the headline names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import CREATED, MadeRun
from support.ptx import Ptx

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import FOLLOW, PATIENCE, ROOT

ECHO = "Connection closed by peer [10.0.0.1]:3333"
LOST = f"RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] {ECHO}"


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})


def leave(run: MadeRun, rank: int, code: int, said: str, *, t: float, node: int) -> None:
    """An exit record and a log, as a rank leaves them that ends with an exception."""
    kind, _, message = said.partition(": ")
    record = {
        "v": 1,
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "ended": CREATED + t,
        "exception": {"type": kind, "message": message} if said else None,
        "last_lines": [f"hello {rank}", *([said] if said else [])],
    }
    run.layout.exit_record(0, node, rank).write_text(json.dumps(record))
    run.layout.rank_log(0, node, rank).write_text(
        "".join(f"2026-11-21T20:00:00.000000Z o {line}\n" for line in record["last_lines"])
    )


def with_an_echo_that_came_first(root: Path) -> MadeRun:
    """Rank 3 of node 1 began it; the clock of node 0, or its agent, was ahead."""
    run = MadeRun(root, "two-aaaaaa", nodes=2).submitted().started(0).started(1)
    for rank in range(4):
        said, t = ("ValueError: boom", 20.0) if rank == 3 else (LOST, 19.9)
        leave(run, rank, 1, said, t=t, node=rank // 2)
    run.ended([1, 1], node=0, t=20.9, message=LOST).ended([1, 1], node=1, t=21, message=LOST)
    return run.over(t=22)


def followed(run: MadeRun) -> str:
    argv = [sys.executable, "-c", FOLLOW, str(run.layout.root)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    return done.stderr


def test_last_words_and_next_command_are_of_the_rank_that_the_headline_names(ptx: Ptx) -> None:
    run = with_an_echo_that_came_first(ptx.runs)
    done = ptx("status", "two")
    for told in (done.stdout, followed(run)):
        assert "Rank 3 on node 1 (n1) exited with 1: ValueError: boom." in told
        assert "last lines of rank 3, which failed first:\n  | hello 3\n  | ValueError" in told
        assert ECHO not in told
    assert "next: ptx logs two-aaaaaa --rank 3 --tail 50\n" in done.stderr
    assert "ptx logs two-aaaaaa --rank 3\n" in followed(run)


def test_who_began_it_stands_first_in_both_tables_however_many_were_told_to_end(ptx: Ptx) -> None:
    nodes, procs, guilty = 40, 2, 77
    run = MadeRun(ptx.runs, "big-aaaaaa", nodes=nodes, procs=procs).submitted()
    for node in range(nodes):
        run.started(node)
        for rank in range(node * procs, (node + 1) * procs):
            said = "ValueError: boom" if rank == guilty else ""
            leave(run, rank, 1 if said else -15, said, t=20.0 if said else 21.0, node=node)
        codes = [1 if node * procs + local == guilty else -15 for local in range(procs)]
        run.ended(codes, node=node, t=21 if 1 in codes else 22)
    run.over(t=23)
    page = ptx.ok("status", "big").splitlines()
    first = {
        line.split()[0]: page[number + 1].split()[:2]
        for number, line in enumerate(page)
        if line.startswith(("NODE", "RANK"))
    }
    assert first == {"NODE": ["38", "n38"], "RANK": ["77", "38"]}
    assert "… and 64 more ranks" in page


def test_those_that_failed_by_themselves_stand_before_those_that_were_told_to_end(
    ptx: Ptx,
) -> None:
    run = MadeRun(ptx.runs, "mix-aaaaaa", procs=4).submitted().started()
    run.ended([-15, 0, 143, 7], message="exit 7").over()
    page = ptx.ok("status", "mix").splitlines()
    begin = next(number for number, line in enumerate(page) if line.startswith("RANK"))
    assert [line.split()[0] for line in page[begin + 1 : begin + 5]] == ["3", "0", "2", "1"]
