"""A rank that raised and was still on its way out when it was told to end is who began it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun
from support.ptx import Ptx, exit_records
from support.why_provoked import submit_script

from orchestrator.agent.exit_record import find_exception
from orchestrator.diagnose.verdict import Verdict
from orchestrator.diagnose.why import why
from orchestrator.runs.observe import observe_one

TERM, KILL, ABORT = -15, -9, -6
BAD = "ValueError: bad sample 17 in shard 3"
CLOSED = (
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] "
    "Connection closed by peer [10.0.0.2]:4242."
)
WATCHDOG = (
    "[E1 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=12, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) "
    "ran for 600061 milliseconds before timing out."
)
STEPS = [(30.0 + n, f"step {n} loss 2.{n}") for n in range(20)]
CHAINED = "\n\nDuring handling of the above exception, another exception occurred:\n\n"


def traceback(last: str) -> str:
    return (
        "Traceback (most recent call last):\n"
        f'  File "/home/ann/train.py", line 30, in <module>\n    main()\n{last}'
    )


def ended_by(
    run: MadeRun, rank: int, said: list[tuple[float, str]], code: int, t: float, node: int = 0
) -> None:
    """It said this, second and text each, and ended at `t`."""
    for moment, text in said:
        leave(run, rank, text, t=moment, node=node)
    text = "\n".join(text for _, text in said)
    last = text.split("\n")[-20:]
    leave(run, rank, code=code, t=t, node=node, exception=find_exception(text), last_lines=last)


def told(
    folder: Path,
    said: list[tuple[float, str]],
    *,
    echo: str = traceback(CLOSED),
    code: int = 1,
    by: int = TERM,
    at: float = 59,
) -> Verdict:
    """Rank 1 `said` this and was told to end; rank 0 had left `at` that time with an echo."""
    run = MadeRun(folder, "late-aaaaaa", procs=3).submitted().started()
    ended_by(run, 0, [(at, echo)], code, at)
    ended_by(run, 1, said, by, at + 5)
    leave(run, 2, "step 3", code=TERM, t=at + 1)
    node_ended(run, {0: code, 1: by, 2: TERM}, first=0)
    run.over(message="").event(62, "supervisor_ended", rc=1)
    return why(observe_one(run.layout, ask=False)[0])


def test_a_rank_that_went_on_without_one_of_its_threads_is_said_to_have(tmp_path: Path) -> None:
    """Nobody else does what that was to do, and the rank itself is never done."""
    died = f"Exception in thread Thread-3 (load):\n{traceback(BAD)}"
    verdict = told(tmp_path, [(40, died)], echo=WATCHDOG, code=ABORT)
    assert verdict.first is not None and verdict.first.rank == 1
    assert verdict.sentence == (
        f"Rank 1 on node 0 (n0) went on without its thread Thread-3 (load), which had raised {BAD},"
        " until it was told to end."
    )


@pytest.mark.parametrize(
    ("echo", "code", "rule"),
    [(traceback(CLOSED), 1, "gloo-closed"), (WATCHDOG, ABORT, "nccl-timeout")],
    ids=["closed", "timeout"],
)
@pytest.mark.parametrize("by", [TERM, 143, KILL])
def test_a_rank_that_raised_and_was_told_to_end_before_it_had_ended_is_the_root(
    echo: str, code: int, rule: str, by: int, tmp_path: Path
) -> None:
    verdict = told(tmp_path, [(40, "step 3"), (50, traceback(BAD))], echo=echo, code=code, by=by)
    assert verdict.sentence == (
        "Rank 1 on node 0 (n0) raised ValueError: bad sample 17 in shard 3, "
        "and was still ending when it was told to end."
    )
    assert verdict.first is not None
    assert (verdict.first.rank, verdict.first.exception) == (1, "ValueError")
    assert (verdict.state, verdict.rule) == ("failed", "")
    assert [row.text for row in verdict.evidence] == [BAD, "main()"]
    assert {row.what: row.ranks for row in verdict.others} == {rule: (0,), "told to end": (2,)}


def test_the_rule_that_knows_its_exception_explains_it(tmp_path: Path) -> None:
    space = traceback("OSError: [Errno 28] No space left on device")
    verdict = told(tmp_path, [(50, space)])
    assert verdict.rule == "no-space"
    assert verdict.sentence == (
        "Rank 1 on node 0 (n0) raised OSError: no space was left on the disk that it wrote to, "
        "and was still ending when it was told to end."
    )


def test_of_a_chain_its_last_exception_is_named(tmp_path: Path) -> None:
    verdict = told(tmp_path, [(50, traceback("KeyError: 'x'") + CHAINED + traceback(BAD))])
    assert verdict.first is not None
    assert verdict.first.exception == "ValueError"


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ([(20, traceback(BAD)), *STEPS], 59.0),
        ([(62, traceback("KeyboardInterrupt"))], 59.0),
        ([(50, traceback(CLOSED))], 59.0),
        ([(50, traceback(BAD))], 59.0 + 3600),
    ],
    ids=["survived", "raised-when-told-to-end", "an-echo-too", "hours-before"],
)
def test_an_exception_that_the_others_cannot_have_noticed_is_not_blamed(
    said: list[tuple[float, str]], at: float, tmp_path: Path
) -> None:
    verdict = told(tmp_path, said, at=at)
    assert verdict.rule == "gloo-closed"
    assert "raised" not in verdict.sentence


def test_what_a_rank_printed_only_once_the_others_had_gone_may_be_what_broke_their_connections(
    tmp_path: Path,
) -> None:
    verdict = told(tmp_path, [(50, "step 3"), (59.2, traceback(BAD))])
    assert verdict.sentence == (
        "Rank 1 on node 0 (n0) raised ValueError: bad sample 17 in shard 3, "
        "and was still ending when it was told to end."
    )
    assert (verdict.rule, verdict.unsure) == ("", ())
    assert {row.what: row.ranks for row in verdict.others} == {
        "gloo-closed": (0,),
        "told to end": (2,),
    }


HANDLER = f"""\
Traceback (most recent call last):
  File "/home/ann/train.py", line 30, in step
    loss.backward()
  File "/home/ann/train.py", line 9, in on_sigterm
    raise stop
{BAD}"""
WORKER = "RuntimeError: DataLoader worker (pid 4) is killed by signal: Terminated. "


@pytest.mark.parametrize(
    ("said", "by"),
    [
        ([(59.2, traceback(BAD))], 143),
        ([(59.2, traceback(BAD))], KILL),
        ([(59.2, HANDLER)], TERM),
        ([(59.2, traceback("mylib.SignalException: Process 7 got signal: 15"))], TERM),
        ([(59.2, traceback(WORKER))], TERM),
        (
            [(59.2, traceback("RuntimeError: DataLoader worker (pid(s) 4) exited unexpectedly"))],
            TERM,
        ),
        ([(59.2, traceback("ConnectionRefusedError: [Errno 111] Connection refused"))], TERM),
        ([(59.2, traceback("queue.Empty") + CHAINED + traceback("TimeoutError"))], TERM),
        ([(59.1, traceback(CLOSED)), (59.2, traceback("ValueError: giving up"))], TERM),
        ([(59.2, traceback(CLOSED) + CHAINED + traceback("ValueError: giving up"))], TERM),
        ([(59.2, traceback("KeyboardInterrupt"))], TERM),
    ],
    ids=[
        "a-shell's-code",
        "killed",
        "a-handler",
        "a-signal's-exception",
        "a-worker-that-was-ended",
        "a-worker-that-was-gone",
        "a-server-that-was-gone",
        "waited",
        "after-an-echo",
        "because-of-an-echo",
        "interrupted",
    ],
)
def test_what_may_have_come_of_the_end_of_others_is_not_blamed(
    said: list[tuple[float, str]], by: int, tmp_path: Path
) -> None:
    verdict = told(tmp_path, said, by=by)
    assert verdict.rule == "gloo-closed"
    assert "raised" not in verdict.sentence


def test_what_was_printed_after_a_timeout_is_not_what_the_others_waited_for(
    tmp_path: Path,
) -> None:
    verdict = told(tmp_path, [(59.2, traceback(BAD))], echo=WATCHDOG, code=ABORT)
    assert verdict.rule == "nccl-timeout"


@pytest.mark.parametrize("codes", [{}, {2: 0}], ids=["no-word", "left-early"])
def test_nor_is_what_was_printed_late_where_another_may_have_gone_first(
    codes: dict[int, int], tmp_path: Path
) -> None:
    run = MadeRun(tmp_path, "late-aaaaaa", procs=3).submitted().started()
    ended_by(run, 0, [(59, traceback(CLOSED))], 1, 59)
    ended_by(run, 1, [(59.2, traceback(BAD))], TERM, 64)
    for rank, code in codes.items():
        leave(run, rank, "done", code=code, t=58)
    node_ended(run, {0: 1, 1: TERM, **codes}, first=0)
    run.over(message="").event(62, "supervisor_ended", rc=1)
    verdict = why(observe_one(run.layout, ask=False)[0])
    assert verdict.rule == ("left-early" if codes else "gloo-closed")
    assert "raised" not in verdict.sentence


def test_a_rank_that_says_no_more_than_that_it_was_told_to_end_is_still_a_suspect(
    tmp_path: Path,
) -> None:
    verdict = told(tmp_path, [(59.2, HANDLER)])
    assert verdict.first is not None
    assert (verdict.first.rank, verdict.unsure) == (1, (2,))


BROKE = ": a connection between ranks broke, and no rank says why"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (60, f"Rank 1 on node 0 (n0){BROKE}; it was killed by SIGTERM after that."),
        (58, f"Rank 1 on node 0 (n0){BROKE}."),
        (None, f"Rank 1{BROKE}; it left no exit record."),
    ],
    ids=["ended-after-it", "ended-before-it", "no-record"],
)
def test_of_the_one_rank_that_may_have_broken_a_connection_it_is_said_how_it_ended(
    ended: float | None, said: str, tmp_path: Path
) -> None:
    """It may have left its loop early and was told to end before it was through."""
    run = MadeRun(tmp_path, "left-aaaaaa", procs=2).submitted().started()
    ended_by(run, 0, [(59, traceback(CLOSED))], 1, 59)
    if ended is not None:
        leave(run, 1, "step 98", code=TERM, t=ended)
    node_ended(run, {0: 1} if ended is None else {0: 1, 1: TERM}, first=0)
    run.over(message="").event(62, "supervisor_ended", rc=1)
    verdict = why(observe_one(run.layout, ask=False)[0])
    assert (verdict.sentence, verdict.rule) == (said, "gloo-closed")
    assert verdict.first is not None and verdict.first.rank == 1
    for word in ("left no exit record", "its launcher ended after", "left its loop early"):
        assert word in verdict.next


def test_of_several_that_may_have_it_is_not_said_of_one(tmp_path: Path) -> None:
    verdict = told(tmp_path, [(50, "step 3")])
    assert verdict.sentence == f"Rank 1 on node 0 (n0), or one of 1 more{BROKE}."


def test_a_timeout_may_be_long_after_the_exception_that_it_names_no_rank_for(
    tmp_path: Path,
) -> None:
    hours = WATCHDOG.replace("(ms)=600000", "(ms)=7200000")
    verdict = told(tmp_path, [(50, traceback(BAD))], echo=hours, code=ABORT, at=59 + 7200)
    assert verdict.first is not None
    assert verdict.first.rank == 1


def test_of_several_that_raised_the_first_is_the_root(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "two-aaaaaa", nodes=2, procs=2).submitted().started(0).started(1)
    ended_by(run, 0, [(59, traceback(CLOSED))], 1, 59)
    ended_by(run, 1, [(52, traceback("KeyError: 'late'"))], TERM, 60)
    ended_by(run, 2, [(51, traceback(BAD))], TERM, 70, node=1)
    ended_by(run, 3, [(53, traceback("KeyError: 'later'"))], TERM, 70, node=1)
    node_ended(run, {0: 1, 1: TERM}, first=0)
    node_ended(run, {2: TERM, 3: TERM}, node=1, first=2)
    run.over(message="").event(62, "supervisor_ended", rc=1)
    verdict = why(observe_one(run.layout, ask=False)[0])
    assert verdict.first is not None
    assert (verdict.first.rank, verdict.first.node) == (2, 1)


def test_a_rank_that_failed_by_itself_comes_before_one_that_was_told_to_end(
    tmp_path: Path,
) -> None:
    verdict = told(tmp_path, [(50, traceback(BAD))], echo=traceback("MemoryError"))
    assert verdict.first is not None
    assert verdict.first.rank == 0


SLOW_TO_LEAVE = """
import atexit, os, time
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
if rank == 1:
    atexit.register(lambda: time.sleep(60))  # as one that uploads what it has
try:
    dist.all_reduce(torch.ones(10))
    if rank == 1:
        raise ValueError("bad sample 17 in shard 3")
    dist.all_reduce(torch.ones(10))
finally:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_real_rank_with_a_slow_exit_is_named_and_not_the_one_that_lost_its_connection(
    tmp_path: Path,
) -> None:
    ptx = Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})
    run = submit_script(ptx, tmp_path / "job", "slow-exit", SLOW_TO_LEAVE, "torchrun")
    assert ptx("wait", run.name, "--timeout", "100s", timeout=120).returncode == 1, ptx.story(run)
    records = {record["rank"]: record for record in exit_records(run)}
    # torch 2.13 aborts now and then where the interpreter takes gloo's threads apart.
    assert records[0]["exit_code"] == 1 or records[0]["signal"] == signal.SIGABRT, records
    assert records[1]["signal"] == signal.SIGTERM, records
    verdict = json.loads(ptx.ok("why", run.name, "--json"))
    assert (verdict["first"]["rank"], verdict["first"]["exception"]) == (1, "ValueError")
    assert verdict["others"] == [{"what": "gloo-closed", "ranks": [0]}]
