"""Whom the others waited for: timeouts, watchdogs and the stacks of a hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun
from support.made_verdicts import (
    ABORT,
    CLOSED,
    ELSEWHERE,
    IN_COLLECTIVE,
    KILL,
    STACK,
    TERM,
    TIMEOUT,
    WATCHDOG,
    over,
    traceback,
)

from orchestrator.cli.why_page import why_page
from orchestrator.runs.observe import observe_one


def test_a_rank_that_all_others_waited_for_is_named_as_a_hang(make: MadeRun) -> None:
    for rank in (0, 1, 3):
        leave(make, rank, traceback(TIMEOUT), code=1, t=57)
    leave(make, 2, "step 7\nsaving", code=TERM, t=58)
    told = over(node_ended(make, {0: 1, 1: 1, 2: TERM, 3: 1}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.state, told.unsure) == (2, "hang", ())
    assert any(line.text == "saving" for line in told.evidence)


def test_a_rank_that_had_to_be_killed_after_the_others_timed_out_hung(make: MadeRun) -> None:
    for rank in (0, 1, 3):
        leave(make, rank, traceback(TIMEOUT), code=1, t=40)
    leave(make, 2, "step 7", code=KILL, t=58)
    told = over(node_ended(make, {0: 1, 1: 1, 2: KILL, 3: 1}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.state, told.rule) == (2, "hang", "gloo-timeout")


def test_of_several_silent_ranks_none_is_named_alone(make: MadeRun) -> None:
    leave(make, 0, traceback(TIMEOUT), code=1)
    leave(make, 1, traceback(TIMEOUT), code=1)
    leave(make, 2, "", code=TERM)
    leave(make, 3, "", code=TERM)
    told = over(node_ended(make, {0: 1, 1: 1, 2: TERM, 3: TERM}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.unsure) == (2, (3,))
    assert "or one of 1 more" in told.sentence


def test_a_rank_that_completed_while_others_still_needed_it_is_named(make: MadeRun) -> None:
    leave(make, 1, "done", code=0, t=50)
    for rank in (0, 2, 3):
        leave(make, rank, traceback(CLOSED), code=1, t=51)
    told = over(node_ended(make, {0: 1, 1: 0, 2: 1, 3: 1}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.rule, told.state) == (1, "left-early", "failed")


def test_ranks_that_wait_in_different_calls_are_told_apart(make: MadeRun) -> None:
    for rank in range(4):
        name = "broadcast" if rank == 3 else "all_reduce"
        text = traceback(TIMEOUT).replace(
            "    main()\n",
            "    main()\n"
            f'  File "/env/torch/distributed/c10d.py", line 81, in wrapper\n    f()\n'
            f'  File "/env/torch/distributed/c10d.py", line 3252, in {name}\n    w()\n',
        )
        leave(make, rank, text, code=1, t=50 + rank)
    told = over(node_ended(make, dict.fromkeys(range(4), 1), first=0))
    assert told.first is not None
    assert (told.first.rank, told.rule) == (3, "different-calls")
    assert "rank 0 in all_reduce, rank 3 in broadcast" in told.cause


def test_nccl_ranks_in_an_earlier_collective_are_who_the_others_wait_for(make: MadeRun) -> None:
    for rank, seq in enumerate((1580, 1580, 1579, 1580)):
        noise = "\n".join(f"frame #{i}: c10::Error + 0x{i}" for i in range(60))
        leave(
            make, rank, f"{WATCHDOG.format(rank=rank, seq=seq)}\n{noise}", code=ABORT, t=50 + rank
        )
    told = over(node_ended(make, dict.fromkeys(range(4), ABORT), first=0))
    assert told.first is not None
    assert (told.first.rank, told.state, told.rule) == (2, "hang", "nccl-timeout")


def test_the_rank_that_was_in_another_operation_under_the_same_number_is_named(
    make: MadeRun,
) -> None:
    for rank in range(4):
        text = WATCHDOG.format(rank=rank, seq=9)
        leave(make, rank, text.replace("ALLREDUCE", "BROADCAST") if rank == 3 else text, code=ABORT)
    told = over(node_ended(make, dict.fromkeys(range(4), ABORT), first=0))
    assert told.first is not None
    assert (told.first.rank, told.rule) == (3, "different-calls")
    assert "rank 3 in BROADCAST" in told.sentence


def test_the_stacks_of_a_hang_name_the_rank_outside_the_collective(make: MadeRun) -> None:
    for rank in range(4):
        frames = ELSEWHERE if rank == 1 else IN_COLLECTIVE
        leave(make, rank, STACK.format(frames=frames), code=ABORT, t=50 - rank)
    node_ended(make, dict.fromkeys(range(4), ABORT), reason="hang", message="no step for 60 s")
    told = over(make)
    assert told.first is not None
    assert (told.first.rank, told.state, told.rule) == (1, "hang", "hang")
    assert told.evidence[0].text == "/home/ann/data.py:7 in load"


def test_a_hang_without_stacks_names_no_rank(make: MadeRun) -> None:
    for rank in range(4):
        leave(make, rank, "step 3", code=TERM)
    node_ended(make, dict.fromkeys(range(4), TERM), reason="hang", message="no step for 60 s")
    told = over(make)
    assert (told.first, told.state, told.node) == (None, "hang", 0)
    assert "no step for 60 s" in told.sentence


def test_a_hang_of_many_ranks_is_told_in_two_lines(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "wide-aaaaaa", nodes=8, procs=8).submitted()
    for node in range(8):
        run.started(node)
        for rank in range(node * 8, node * 8 + 8):
            frames = ELSEWHERE if rank == 41 else IN_COLLECTIVE
            leave(run, rank, STACK.format(frames=frames), code=ABORT, node=node)
        codes = dict.fromkeys(range(node * 8, node * 8 + 8), ABORT)
        node_ended(run, codes, node=node, reason="hang", message="no step for 60 s")
    told = over(run)
    assert told.first is not None
    assert (told.first.rank, told.node, told.unsure) == (41, 5, ())
    assert [(len(one.ranks), one.call, one.stopped) for one in told.stands] == [
        (1, "load", True),
        (63, "all_reduce", False),
    ]
    assert "63 ranks: all_reduce, train.py:40" in why_page(
        observe_one(run.layout, ask=False)[0], told
    )


def test_a_rank_that_left_no_stack_while_all_others_waited_is_who_they_waited_for(
    make: MadeRun,
) -> None:
    for rank in range(4):
        text = "step 3" if rank == 2 else STACK.format(frames=IN_COLLECTIVE)
        leave(make, rank, text, code=KILL if rank == 2 else ABORT)
    codes = {0: ABORT, 1: ABORT, 2: KILL, 3: ABORT}
    told = over(node_ended(make, codes, reason="hang", message="no step for 60 s"))
    assert told.first is not None
    assert told.first.rank == 2
    assert "left no stack" in told.sentence


@pytest.mark.parametrize("name", ["/dev/zero", "/no/such/file.py", "/", "\\0"])
def test_a_stack_may_name_any_file_and_none_is_read_that_is_no_script(
    name: str, make: MadeRun
) -> None:
    frames = f'  File "{name}", line 7 in load'
    for rank in range(4):
        text = STACK.format(frames=frames if rank == 1 else IN_COLLECTIVE)
        leave(make, rank, text, code=ABORT)
    codes = dict.fromkeys(range(4), ABORT)
    told = over(node_ended(make, codes, reason="hang", message="no step for 60 s"))
    assert told.first is not None
    assert told.first.rank == 1


def test_a_rank_that_was_waited_for_with_nccl_not_begun_is_the_one(make: MadeRun) -> None:
    said = (
        "torch.distributed.DistBackendError: [{rank}] is setting up NCCL communicator and "
        "retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but "
        "store->get('0') got error: wait timeout after 600000ms, keys: /default_pg/0//cuda//0"
    )
    leave(make, 0, "tokenized 12 of 40 files", code=TERM, t=59)
    for rank in (1, 2, 3):
        leave(make, rank, traceback(said.format(rank=rank)), code=1, t=50 + rank)
    told = over(node_ended(make, {0: TERM, 1: 1, 2: 1, 3: 1}, first=1))
    assert told.first is not None
    assert (told.first.rank, told.rule, told.unsure) == (0, "nccl-not-begun", ())


def test_nccl_that_was_not_begun_in_a_part_of_the_ranks_is_no_word_on_rank_0(
    make: MadeRun,
) -> None:
    """In that message [0] stands for the first of the group, whoever that is."""
    said = (
        "torch.distributed.DistBackendError: [1] is setting up NCCL communicator and retrieving "
        "ncclUniqueId from [0] via c10d key-value store by key '0', but store->get('0') got error: "
        "wait timeout after 600000ms, keys: /2/0//cuda//0"
    )
    for rank in (0, 1, 2):
        leave(make, rank, "step 4", code=TERM, t=59)
    leave(make, 3, traceback(said), code=1, t=50)
    told = over(node_ended(make, {0: TERM, 1: TERM, 2: TERM, 3: 1}, first=3))
    assert (told.rule, {0, *told.unsure}) == ("nccl-not-begun", {0, 1, 2})


def test_a_rank_with_a_timeout_of_its_own_is_not_the_idle_one(make: MadeRun) -> None:
    """The numbers in the signal are those of the whole group, where its timeout is a part's."""
    idle = (
        "[PG ID 0 PG GUID 0(default_pg) Rank {rank}] Received a dump signal due to a collective "
        "timeout from rank 0 and we will try our best to dump the debug info. Last enqueued NCCL "
        "work: 3, last completed NCCL work: 3.This is most likely"
    )
    for rank in range(4):
        own = "" if rank == 3 else WATCHDOG.format(rank=rank, seq=1000)
        leave(make, rank, f"{own}\n{idle.format(rank=rank)}", code=ABORT, t=50 + rank)
    told = over(node_ended(make, dict.fromkeys(range(4), ABORT), first=0))
    assert told.first is not None
    assert (told.first.rank, told.rule, told.unsure) == (3, "nccl-idle", ())


def test_a_rank_that_had_finished_its_collectives_is_who_the_others_waited_for(
    make: MadeRun,
) -> None:
    """It is told of the timeout by the others, and has none of its own."""
    idle = (
        "[rank2]:[E1 ProcessGroupNCCL.cpp:1834] [PG ID 0 PG GUID 0(default_pg) Rank 2] Received a "
        "dump signal due to a collective timeout from  rank {by} and we will try our best to dump "
        "the debug info. Last enqueued NCCL work: {enqueued}, last completed NCCL work: 86.This is "
        "most likely caused by incorrect usages of collectives"
    )
    for rank in (0, 1, 3):
        leave(make, rank, WATCHDOG.format(rank=rank, seq=87), code=ABORT, t=50 + rank)
    leave(make, 2, idle.format(by=1, enqueued=86), code=ABORT, t=58)
    told = over(node_ended(make, dict.fromkeys(range(4), ABORT), first=0))
    assert told.first is not None
    assert (told.first.rank, told.rule, told.unsure) == (2, "nccl-idle", ())
    assert "rank 1 waited for" in told.sentence


def test_what_a_hung_rank_had_printed_may_name_the_cause(make: MadeRun) -> None:
    waits = 'UserWarning: Waited on lock file "/home/ann/.cache/adam/lock" for 10 seconds.'
    for rank in range(4):
        leave(make, rank, f"ConnectionResetError: long ago\n{waits}", code=KILL, t=59)
    node_ended(make, dict.fromkeys(range(4), KILL), reason="hang", message="nothing for 900 s")
    told = over(make)
    assert (told.state, told.rule) == ("hang", "extension-lock")
    assert "/home/ann/.cache/adam/lock" in told.cause


def test_a_question_that_was_answered_is_not_what_a_hang_waits_for(make: MadeRun) -> None:
    for rank in range(4):
        leave(make, rank, "Do you want to continue? [Y/n] y\nstep 1", code=KILL, t=59)
    node_ended(make, dict.fromkeys(range(4), KILL), reason="hang", message="nothing for 900 s")
    assert over(make).rule == "hang"


def test_what_explains_a_stack_is_said_with_what_to_do_about_it(make: MadeRun) -> None:
    waits = 'UserWarning: Waited on lock file "/cache/adam/lock" for 10 seconds.'
    deep = "\n".join(f'  File "/home/ann/data.py", line {n} in load' for n in range(150))
    for rank in range(4):
        frames = f"{deep}\n{ELSEWHERE}" if rank == 1 else IN_COLLECTIVE
        leave(make, rank, f"{waits}\n{STACK.format(frames=frames)}", code=ABORT, t=50 - rank)
    node_ended(make, dict.fromkeys(range(4), ABORT), reason="hang", message="no step for 60 s")
    told = over(make)
    assert told.first is not None and told.first.rank == 1
    assert told.rule == "extension-lock"
    assert "/cache/adam/lock" in told.sentence and "Remove that lock" in told.next
