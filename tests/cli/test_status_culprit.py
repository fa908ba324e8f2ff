"""Whom `ptx status`, `status RUN`, `submit --follow` and `logs --follow` name of a failed run: whom
`ptx why` names."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import CREATED, MadeRun
from support.ptx import Ptx

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import FOLLOW, PATIENCE, ROOT

from orchestrator.cli import row_verdicts, run_list
from orchestrator.cli.row_verdicts import with_verdicts
from orchestrator.diagnose import why as why_module
from orchestrator.runs.survey import survey

ECHO = "Connection closed by peer [10.0.0.1]:3333"
STACK = (
    "Current thread 0x00007f43 (most recent call first):",
    '  File "train.py", line 4 in load',
    "",
    "Extension modules: numpy.core._multiarray_umath, torch._C (total: 2)",
)
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


def that_hung(root: Path) -> MadeRun:
    """Rank 1 stands in its own code, rank 0 in a collective; the agent ended both."""
    run = MadeRun(root, "hang-aaaaaa").submitted().started()
    stuck = ['  File "train.py", line 4 in load', '  File "train.py", line 9 in <module>']
    waits = [
        '  File "/venv/site-packages/torch/distributed/distributed_c10d.py", line 9 in all_reduce',
        '  File "train.py", line 8 in <module>',
    ]
    for rank, frames in enumerate((waits, stuck)):
        leave(run, rank, -6, "", t=20.0, node=0)
        said = ["step 3", "Fatal Python error: Aborted", ""]
        said += ["Current thread 0x00007f43 (most recent call first):", *frames, ""]
        said += ["Extension modules: numpy.core._multiarray_umath, torch._C (total: 2)"]
        run.layout.rank_log(0, 0, rank).write_text(
            "".join(f"2026-11-21T20:00:00.000000Z e {line}\n" for line in said)
        )
        record = json.loads(run.layout.exit_record(0, 0, rank).read_text())
        run.layout.exit_record(0, 0, rank).write_text(json.dumps(record | {"last_lines": said}))
    said = "no rank here printed anything for 20 s"
    fields = {"attempt": 0, "node": 0, "rc": 1, "reason": "hang", "message": said}
    run.event(21, "node_ended", ranks={"0": -6, "1": -6}, first_failure=None, **fields)
    return run.over(t=22, message=said)


def reasons(page: str) -> dict[str, str]:
    """By run, what the table says of it in its last column."""
    head, *rows = page.splitlines()
    return {row.split()[0]: row[head.index("REASON") :] for row in rows}


def settled(root: Path) -> None:
    """As if nothing had been written for long: what has just changed the index does not keep."""
    for path in (*root.glob("*/events/*"), *root.glob("*/events")):
        os.utime(path, (CREATED, CREATED))


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


def test_the_table_and_the_end_of_a_followed_log_name_whom_why_names(ptx: Ptx) -> None:
    """The first failure that an agent reported was an echo; of a hang it names no rank at all."""
    runs = {"two": with_an_echo_that_came_first(ptx.runs), "hang": that_hung(ptx.runs)}
    told = {name: json.loads(ptx.ok("why", name, "--json"))["sentence"] for name in runs}
    assert told["two"] == "Rank 3 on node 1 (n1) exited with 1: ValueError: boom."
    assert told["hang"].startswith("Rank 1 on node 0 (n0) stopped in load (train.py:4)")
    assert reasons(ptx.ok("status")) == {
        "two-aaaaaa": "Rank 3: ValueError: boom.",
        "hang-aaaaaa": told["hang"].replace(" on node 0 (n0)", ""),
    }
    for name, run in runs.items():
        done = ptx("logs", name, "--follow")
        assert f"{run.layout.run_id} failed: {told[name]}\n" in done.stderr
        assert done.returncode == 1


@pytest.fixture
def root(ptx: Ptx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For looks within this process."""
    monkeypatch.setenv("PTX_RUNS", str(ptx.runs))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return ptx.runs


def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs on which a verdict is sought from now on."""
    seen: list[str] = []
    usual = why_module.why

    def noted(run: Any, *more: Any, **named: Any) -> Any:
        seen.append(run.layout.run_id)
        return usual(run, *more, **named)

    monkeypatch.setattr(why_module, "why", noted)
    return seen


def look() -> dict[str, str]:
    found = survey()
    page = run_list.text(with_verdicts(found.rows, found.index))
    found.index.save()
    return reasons(page)


def test_a_verdict_is_found_once_and_again_after_a_restart_or_under_other_rules(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_an_echo_that_came_first(root)
    MadeRun(root, "good-aaaaaa").completed()
    settled(root)
    seen = judged(monkeypatch)
    first = look()
    assert look() == first and seen == ["two-aaaaaa"]
    (tmp_path / "config/ptx").mkdir(parents=True)
    (tmp_path / "config/ptx/rules.toml").write_text(
        "[[rule]]\nid = 'own'\nclass = 'failed'\ntext = ['ValueError: boom']\n"
        "cause = 'the sample was bad'\nnext = 'Leave it out.'\n"
    )
    assert look()["two-aaaaaa"] == "Rank 3: the sample was bad."
    assert look() == {**first, "two-aaaaaa": "Rank 3: the sample was bad."}
    assert seen == ["two-aaaaaa"] * 2
    (run.layout.events / "resume-001.jsonl").touch()  # as whoever starts it again leaves one
    run.started(0, attempt=1, t=30).started(1, attempt=1, t=30)
    run.ended([0, 0], node=0, attempt=1, t=40)
    run.ended([0, 1], node=1, attempt=1, t=40, message="KeyError: 'x'").over(attempt=1, t=41)
    assert look()["two-aaaaaa"] == "Rank 3: KeyError: 'x'."


def test_whoever_has_no_home_here_has_no_rules_of_their_own_and_sees_the_table(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: int) -> Any:
        raise KeyError

    with_an_echo_that_came_first(root)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert look() == {"two-aaaaaa": "Rank 3: ValueError: boom."}


def test_one_look_judges_a_few_and_of_the_others_no_rank_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_verdicts, "MOST_RUNS", 2)
    for number in range(5):
        MadeRun(root, f"r-{number:06d}", created=CREATED + number).failed()
    settled(root)
    seen = judged(monkeypatch)
    first = look()
    assert seen == ["r-000004", "r-000003"]
    assert [first[f"r-{number:06d}"] for number in (4, 3, 2, 1, 0)] == [
        *["Rank 1: ValueError: bad batch."] * 2,
        *["ValueError: bad batch."] * 3,
    ]
    look()
    assert set(look().values()) == {"Rank 1: ValueError: bad batch."}
    assert len(seen) == 5


def test_however_large_a_run_is_it_is_judged_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_verdicts, "MOST_RANKS", 4)
    for number, nodes in enumerate((1, 8, 1)):
        run = MadeRun(root, f"r-{number:06d}", nodes=nodes, created=CREATED + number).submitted()
        for node in range(nodes):
            run.started(node).ended([1, 1], node=node, message="ValueError: bad batch")
        run.over()
    settled(root)
    seen = judged(monkeypatch)
    for _ in range(3):
        look()
    assert seen == ["r-000002", "r-000001", "r-000000"]


@pytest.mark.parametrize(
    "said", ["Fatal Python error: Segmentation fault", "terminate called: bad handle", ""]
)
def test_what_a_rank_said_of_a_crash_is_no_line_of_its_stack(ptx: Ptx, said: str) -> None:
    """Nor is it of a hang, where the JSON says what the page says."""
    run = MadeRun(ptx.runs, "r-aaaaaa").submitted().started()
    leave(run, 1, -11, "", t=20.0, node=0)
    record = json.loads(run.layout.exit_record(0, 0, 1).read_text())
    record["last_lines"] = [said, "", *STACK]
    run.layout.exit_record(0, 0, 1).write_text(json.dumps(record))
    run.event(
        21, "node_ended", attempt=0, node=0, rc=1, reason="rank-failed",
        ranks={"0": -15, "1": -11}, first_failure=None,
    )  # fmt: skip
    run.over(t=22)
    that_hung(ptx.runs)
    first = json.loads(ptx.ok("why", "r", "--json"))["first"]
    assert (first["rank"], first["signal"], first["message"]) == (1, 11, said or None)
    hung = json.loads(ptx.ok("why", "hang", "--json"))
    assert hung["first"]["message"] == "stopped in load (train.py:4)"
    assert hung["first"]["message"] in ptx.ok("why", "hang")
