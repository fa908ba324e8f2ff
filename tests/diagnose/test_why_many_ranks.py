"""More failed ranks than `ptx why` looks at: none is left out of what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun

from orchestrator.diagnose import witness
from orchestrator.diagnose.verdict import Verdict
from orchestrator.diagnose.why import why
from orchestrator.runs.observe import observe_one

TERM = -15
NODES, PROCS = 6, 4
ROOT = 22
"""On the last node."""
TRACEBACK = """Traceback (most recent call last):
  File "/home/ann/train.py", line 30, in <module>
    main()
"""
BAD = f"{TRACEBACK}ValueError: boom"
CLOSED = (
    f"{TRACEBACK}RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] "
    "Connection closed by peer [10.0.0.2]:4242."
)


def told(folder: Path, code: int, *, named: int, first_node: int) -> Verdict:
    """ROOT raised; the others ended with `code`, with an echo where that is no signal. The agents
    named rank `named` of each node, that of `first_node` before the others."""
    run = MadeRun(folder, "many-aaaaaa", nodes=NODES, procs=PROCS).submitted()
    for node in range(NODES):
        run.started(node)
        ranks = range(node * PROCS, (node + 1) * PROCS)
        for rank in ranks:
            text = BAD if rank == ROOT else CLOSED if code > 0 else "step 3"
            leave(run, rank, text, code=1 if rank == ROOT else code, node=node, t=50)
        codes = {rank: 1 if rank == ROOT else code for rank in ranks}
        first = node * PROCS + named
        node_ended(run, codes, node=node, first=first, t=55 if node == first_node else 60)
    run.over(message="").event(62, "supervisor_ended", rc=1)
    return why(observe_one(run.layout, ask=False)[0])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than fail here: else a case would need thousands of files."""
    monkeypatch.setattr(witness, "MOST_RECORDS", 12)


def test_all_that_were_told_to_end_are_counted_though_few_are_looked_at(tmp_path: Path) -> None:
    verdict = told(tmp_path, TERM, named=ROOT % PROCS, first_node=ROOT // PROCS)
    assert verdict.first is not None
    assert verdict.first.rank == ROOT
    others = tuple(rank for rank in range(NODES * PROCS) if rank != ROOT)
    assert [(row.what, row.ranks) for row in verdict.others] == [("told to end", others)]


@pytest.mark.parametrize("code", [1, TERM])
def test_the_node_that_failed_first_is_looked_at_whole(code: int, tmp_path: Path) -> None:
    """Though its agent named another rank, and it is the last node by number."""
    verdict = told(tmp_path, code, named=0, first_node=ROOT // PROCS)
    assert verdict.first is not None
    assert verdict.first.rank == ROOT


def test_that_not_all_were_looked_at_is_said_where_one_of_them_may_know_why(
    tmp_path: Path,
) -> None:
    verdict = told(tmp_path, 1, named=0, first_node=0)
    assert verdict.rule == "gloo-closed"
    assert verdict.sentence.endswith(
        "a connection between ranks broke; of 24 failed ranks 12 were looked at."
    )
    counted = {row.what: len(row.ranks) for row in verdict.others}
    assert counted == {"gloo-closed": 11, "not looked at": 12}


def test_no_rank_is_called_unread_where_all_were_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    verdict = told(tmp_path, 1, named=0, first_node=0)
    assert verdict.first is not None
    assert verdict.first.rank == ROOT
    assert [(row.what, len(row.ranks)) for row in verdict.others] == [("gloo-closed", 23)]
