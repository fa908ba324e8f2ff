"""Who began it, on run folders of every kind: the root apart from its echoes."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun

from orchestrator.cli.why_page import why_page
from orchestrator.diagnose.verdict import Verdict
from orchestrator.diagnose.why import one_line, why
from orchestrator.runs.observe import observe_one

TERM, KILL, ABORT = -signal.SIGTERM, -signal.SIGKILL, -signal.SIGABRT
GLOO = "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/"
CLOSED = f"{GLOO}pair.cc:553] Connection closed by peer [10.0.0.2]:4242."
TIMEOUT = f"{GLOO}unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete"
WATCHDOG = (
    "[rank{rank}]:[E1 ProcessGroupNCCL.cpp:607] [Rank {rank}] Watchdog caught collective operation "
    "timeout: WorkNCCL(SeqNum={seq}, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) "
    "ran for 600061 milliseconds before timing out."
)
STACK = """Fatal Python error: Aborted

Thread 0x00007f00 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait

Current thread 0x00007f01 (most recent call first):
{frames}"""
IN_COLLECTIVE = """  File "/env/site-packages/torch/distributed/c10d.py", line 3252 in all_reduce
  File "/home/ann/train.py", line 40 in step"""
ELSEWHERE = """  File "/home/ann/data.py", line 7 in load
  File "/home/ann/train.py", line 38 in step"""


def traceback(last: str) -> str:
    return (
        "Traceback (most recent call last):\n"
        '  File "/home/ann/train.py", line 30, in <module>\n'
        f"    main()\n{last}"
    )


@pytest.fixture
def make(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path, "job-aaaaaa", procs=4).submitted().started()


def verdict(run: MadeRun, attempt: int | None = None) -> Verdict:
    observed, _ = observe_one(run.layout, ask=False)
    return why(observed, attempt=attempt)


def over(run: MadeRun) -> Verdict:
    """After the supervisor has gone."""
    run.over().event(62, "supervisor_ended", rc=1)
    return verdict(run)


def test_the_root_is_told_from_echoes_that_came_first(make: MadeRun) -> None:
    """An echo's clock is behind, or its rank was quicker to write its record."""
    leave(make, 0, traceback(CLOSED), code=1, t=57)
    leave(make, 1, traceback(TIMEOUT), code=1, t=58)
    leave(make, 2, traceback("ValueError: bad batch"), code=1, t=59)
    leave(make, 3, "", code=TERM, t=56)
    told = over(node_ended(make, {0: 1, 1: 1, 2: 1, 3: TERM}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.state, told.first.exception) == (2, "failed", "ValueError")
    assert told.sentence == "Rank 2 on node 0 (n0) exited with 1: ValueError: bad batch."
    assert {group.what: group.ranks for group in told.others} == {
        "gloo-closed": (0,),
        "gloo-timeout": (1,),
        "told to end": (3,),
    }


def test_why_a_failed_run_is_not_started_again_is_said_with_why_it_failed(make: MadeRun) -> None:
    leave(make, 0, traceback("ValueError: bad"), code=1)
    node_ended(make, {0: 1, 1: 0, 2: 0, 3: 0}, first=0)
    failed = "Rank 0 on node 0 (n0) exited with 1: ValueError: bad."
    assert verdict(make).sentence == failed
    make.over(message="ValueError: bad; not started again: restart.max (2) is used up")
    assert verdict(make).sentence == f"{failed} Not started again: restart.max (2) is used up."


def test_the_root_of_another_node_is_found_though_its_clock_is_ahead(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "two-aaaaaa", nodes=2, procs=2).submitted()
    run.started(0).started(1)
    leave(run, 0, traceback(CLOSED), code=1, t=50)
    leave(run, 1, traceback(CLOSED), code=1, t=50)
    leave(run, 2, traceback("OSError: [Errno 28] No space left on device"), code=1, node=1, t=170)
    leave(run, 3, "", code=TERM, node=1, t=171)
    node_ended(run, {0: 1, 1: 1}, first=0)
    told = over(node_ended(run, {2: 1, 3: TERM}, node=1, first=2, t=172))
    assert told.first is not None
    assert (told.first.rank, told.first.node, told.first.host) == (2, 1, "n1")
    assert (told.rule, told.state) == ("no-space", "failed")


def test_a_sigkill_long_after_anothers_failure_is_the_launchers(make: MadeRun) -> None:
    leave(make, 0, "", code=KILL, t=59)
    leave(make, 1, traceback("ValueError: bad"), code=1, t=40)
    told = over(node_ended(make, {0: KILL, 1: 1, 2: TERM, 3: TERM}, first=1))
    assert told.first is not None
    assert told.first.rank == 1


def test_a_rank_killed_first_is_the_root_of_closed_connections(make: MadeRun) -> None:
    leave(make, 3, "step 4", code=KILL, t=58.5)
    for rank in range(3):
        leave(make, rank, traceback(CLOSED), code=1, t=58.2)
    told = over(node_ended(make, {0: 1, 1: 1, 2: 1, 3: KILL}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.rule, told.state) == (3, "killed", "failed")


def test_the_out_of_memory_killer_is_known_by_what_the_launcher_or_the_kernel_said(
    make: MadeRun,
) -> None:
    leave(make, 3, "step 4", code=KILL)
    log = make.layout.node(0, 0) / "launcher.log"
    log.write_text("torchrun\nMemory cgroup out of memory: Killed process 4711 (python)\nmore\n")
    told = over(node_ended(make, {0: TERM, 1: TERM, 2: TERM, 3: KILL}, first=3))
    assert (told.state, told.rule) == ("out-of-memory", "host-oom-killer")
    assert told.first is not None
    assert told.first.rank == 3
    assert (told.evidence[0].path, told.evidence[0].line) == (
        "attempts/000/node-0000/launcher.log",
        2,
    )


@pytest.mark.parametrize(("held", "rule"), [(250, "killed-for-memory"), (20, "killed")])
def test_a_rank_killed_while_its_node_held_all_the_memory_it_asked_for_ran_out_of_it(
    held: int, rule: str, make: MadeRun
) -> None:
    make.layout.bundle.mkdir()
    (make.layout.bundle / "job.sbatch").write_text("#!/bin/bash\n#SBATCH --mem=300M\n")
    leave(make, 3, "step 4", code=KILL, max_rss_bytes=held << 20)
    told = over(node_ended(make, {0: TERM, 1: TERM, 2: TERM, 3: KILL}, first=3))
    assert told.rule == rule
    assert told.state == ("out-of-memory" if held > 200 else "failed")


def test_what_began_a_chain_of_exceptions_counts(make: MadeRun) -> None:
    text = (
        traceback("KeyError: 'labels'")
        + "\n\nDuring handling of the above exception, another exception occurred:\n\n"
        + traceback(CLOSED)
    )
    leave(make, 1, text, code=1, t=58)
    leave(make, 0, traceback(CLOSED), code=1, t=57)
    told = over(node_ended(make, {0: 1, 1: 1, 2: TERM, 3: TERM}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.first.exception) == (1, "KeyError")


def test_an_abort_on_the_way_out_does_not_hide_the_exception(make: MadeRun) -> None:
    abort = "terminate called without an active exception\nFatal Python error: Aborted"
    leave(make, 0, f"{traceback(CLOSED)}\n{abort}", code=ABORT, t=50)
    leave(make, 2, f"{traceback('ValueError: bad batch')}\n{abort}", code=ABORT, t=59)
    told = over(node_ended(make, {0: ABORT, 1: TERM, 2: ABORT, 3: TERM}, first=0))
    assert told.first is not None
    assert (told.first.rank, told.first.exception, told.rule) == (2, "ValueError", "")


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


def test_the_evidence_names_the_line_of_a_long_log(make: MadeRun) -> None:
    filler = "\n".join(f"step {i} loss 2.0 {'x' * 80}" for i in range(20_000))
    leave(make, 1, f"{filler}\n{traceback('ValueError: bad batch')}", code=1)
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    log = make.layout.rank_log(0, 0, 1).read_text().split("\n")
    found = told.evidence[0]
    assert found.line is not None
    assert log[found.line - 1].endswith("ValueError: bad batch")
    assert (told.evidence[1].path, told.evidence[1].line) == ("/home/ann/train.py", 30)


@pytest.mark.parametrize(
    ("state", "rule"),
    [("time-limit", "time-limit"), ("preempted", "preempted"), ("node-failure", "node-failure")],
)
def test_what_the_scheduler_did_is_the_class_whatever_the_ranks_said(
    state: str, rule: str, make: MadeRun
) -> None:
    leave(make, 0, traceback("RuntimeError: interrupted while saving"), code=1)
    node_ended(make, {0: 1, 1: TERM, 2: TERM, 3: TERM}, first=0, reason="terminated")
    make.event(61, "job_ended", state=state, reason="", attempt=0)
    told = verdict(make)
    assert (told.state, told.rule, told.kind) == (state, rule, "failed")


def test_a_rank_whose_own_words_give_the_class_says_more_than_the_class(make: MadeRun) -> None:
    leave(make, 2, traceback("MemoryError"), code=1)
    node_ended(make, {0: TERM, 1: TERM, 2: 1, 3: TERM}, first=2)
    make.over("out-of-memory").event(62, "supervisor_ended", rc=1)
    told = verdict(make)
    assert told.first is not None
    assert (told.state, told.rule, told.first.rank) == ("out-of-memory", "host-memory-error", 2)


def test_the_victim_of_a_jobs_memory_limit_is_named(make: MadeRun) -> None:
    leave(make, 0, traceback(CLOSED), code=1, t=57)
    leave(make, 2, "step 5", code=KILL, t=58)
    node_ended(make, {0: 1, 1: TERM, 2: KILL, 3: TERM}, first=0)
    make.event(61, "job_ended", state="out-of-memory", reason="", attempt=0)
    told = verdict(make)
    assert told.first is not None
    assert (told.state, told.first.rank) == ("out-of-memory", 2)


def test_the_node_that_fell_silent_is_named(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "two-aaaaaa", nodes=2, procs=1).submitted().started(0).started(1)
    leave(run, 0, traceback(CLOSED), code=1)
    node_ended(run, {0: 1}, first=0)
    run.event(61, "job_ended", state="node-failure", reason="", attempt=0)
    told = verdict(run)
    assert (told.state, told.node) == ("node-failure", 1)
    assert "n1" in told.sentence


def test_a_setup_line_that_failed_is_shown_with_what_the_shell_said(make: MadeRun) -> None:
    log = make.layout.node(0, 0) / "launcher.log"
    log.write_text(
        "/r/bundle/launch.sh: line 43: module: command not found\n"
        "ptx: setup line 1 of the spec failed: exit code 127 from: module load cuda\n"
    )
    message = "setup line 1 of the spec failed: exit code 127 from: module load cuda"
    told = over(node_ended(make, {}, reason="setup-failed", message=message))
    assert (told.state, told.rule, told.node, told.first) == (
        "launch-error",
        "command-not-found",
        0,
        None,
    )
    assert told.evidence[0].line == 1


def test_of_a_node_that_cannot_run_the_job_the_others_that_were_ended_say_nothing(
    make: MadeRun,
) -> None:
    make.started(node=1)
    leave(make, 0, "", code=TERM)
    node_ended(make, dict.fromkeys(range(4), TERM), reason="terminated")
    message = "no space is left in /tmp"
    told = over(node_ended(make, {}, node=1, reason="check-failed", message=message))
    assert (told.state, told.node, told.first) == ("launch-error", 1, None)
    assert message in told.sentence
    assert (told.cause, told.rule) == ("", "")


def test_a_completed_run_has_no_cause(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "good-aaaaaa").completed()
    leave(run, 0, traceback("RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"))
    told = verdict(run)
    assert (told.kind, told.rule, told.cause, told.first) == ("completed", "", "", None)
    assert told.sentence == "Nothing failed: all 2 ranks exited with 0."


def test_a_cancelled_run_has_no_cause(make: MadeRun) -> None:
    make.event(30, "cancel", user="ann")
    leave(make, 0, "", code=TERM)
    node_ended(make, dict.fromkeys(range(4), TERM), reason="terminated")
    make.event(62, "supervisor_ended", rc=1)
    told = verdict(make)
    assert (told.kind, told.state, told.rule) == ("ended", "cancelled", "")


def test_a_run_of_which_nothing_is_known_stays_unknown(tmp_path: Path) -> None:
    told = verdict(MadeRun(tmp_path, "lost-aaaaaa"))
    assert (told.kind, told.state, told.rule, told.cause) == ("unknown", "unknown", "", "")


def test_a_running_run_has_not_failed(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "live-aaaaaa").supervised().started()
    leave(run, 0, "step 1")
    told = verdict(run)
    assert (told.kind, told.rule) == ("running", "")
    assert told.sentence.startswith("Nothing has failed so far")


def test_an_earlier_attempt_is_explained_by_its_own_logs(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "twice-aaaaaa").supervised().started()
    leave(run, 1, traceback("OSError: [Errno 28] No space left on device"), code=1)
    node_ended(run, {0: TERM, 1: 1}, first=1)
    run.over("failed", where="allocation").started(attempt=1, t=70)
    told = verdict(run, attempt=0)
    assert told.first is not None
    assert (told.first.rank, told.rule, told.attempt) == (1, "no-space", 0)
    now = verdict(run)
    assert now.kind == "running"
    assert now.before is not None
    assert (now.before.attempt, now.before.state) == (0, "failed")
    assert "no space" in now.before.sentence


def test_an_attempt_of_another_size_has_the_ranks_that_it_had(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "grown-aaaaaa").supervised().started()
    for rank in range(2):
        leave(run, rank, traceback("RuntimeError: Connection closed by peer"), code=1)
    node_ended(run, {0: 1, 1: 1}, first=0)
    run.over("failed")
    run.event(
        70,
        "intent",
        submission=1,
        attempt=1,
        launcher="torchrun",
        nodes=1,
        procs_per_node=8,
        world_size=8,
        scheduler="local",
    )
    run.event(71, "submitted", submission=1, job_id="9")
    run.started(attempt=1, t=72)
    told = verdict(run, attempt=0)
    assert "Rank 2" not in told.sentence and "more" not in told.sentence


def test_a_traceback_behind_a_progress_bar_is_found_with_its_place(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "bar-aaaaaa").supervised().started()
    bar = " 40%|████      | 4/10 [00:00<00:00, 8.23it/s]"
    leave(run, 1, bar + traceback("ValueError: bad batch").lstrip(), code=1)
    node_ended(run, {0: TERM, 1: 1}, first=1)
    run.over("failed")
    told = verdict(run)
    assert told.first is not None and told.first.rank == 1
    assert "ValueError: bad batch" in told.sentence
    assert [(row.path, row.line) for row in told.evidence][1:] == [("/home/ann/train.py", 30)]


def test_one_sentence_says_it_all(make: MadeRun) -> None:
    leave(make, 1, traceback("ModuleNotFoundError: No module named 'apex'"), code=1)
    node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1)
    make.over().event(62, "supervisor_ended", rc=1)
    observed, _ = observe_one(make.layout, ask=False)
    told = one_line(observed)
    assert told.startswith("Rank 1 on node 0 (n0) exited with 1: the module apex is not installed")
    assert "\n" not in told


def test_damaged_files_end_in_less_evidence_and_never_in_a_crash(make: MadeRun) -> None:
    log = leave(make, 1, traceback("ValueError: bad"), code=1)
    node_ended(make, {0: 1, 1: 1, 2: 1, 3: 1}, first=1)
    make.over().event(62, "supervisor_ended", rc=1)
    record = make.layout.exit_record(0, 0, 1)
    for damage in (b"", b"{", b"\x00\xff\xfe", json.dumps({"v": 1, "exception": 3}).encode()):
        record.write_bytes(damage)
        assert verdict(make).kind == "failed"
        log.write_bytes(damage)
        assert verdict(make).kind == "failed"
    log.unlink()
    log.mkdir()
    assert verdict(make).kind == "failed"


def test_control_sequences_of_a_rank_do_not_reach_the_verdict(make: MadeRun) -> None:
    leave(make, 1, traceback("ValueError: \x1b]0;owned\x07bad\x1b[2J"), code=1)
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    assert "\x1b" not in told.sentence
    assert all("\x1b" not in line.text for line in told.evidence)


def test_many_ranks_with_long_logs_cost_their_ends_only(tmp_path: Path) -> None:
    """64 logs of 10 MB each, sparse on disk: what is read is counted, not timed."""
    run = MadeRun(tmp_path, "wide-aaaaaa", nodes=8, procs=8).submitted()
    codes: dict[int, int] = {}
    for node in range(8):
        run.started(node)
        for rank in range(node * 8, node * 8 + 8):
            bad = rank == 37
            log = run.layout.rank_log(0, node, rank)
            with log.open("wb") as file:
                file.truncate(10 * 1024 * 1024)
                file.seek(0, 2)
                file.write(b"\n")
            text = traceback("ValueError: the one") if bad else traceback(CLOSED)
            leave(run, rank, text, code=1, node=node, t=59 if bad else 40 + rank / 100)
            codes[rank] = 1
        own = {rank: codes[rank] for rank in range(node * 8, node * 8 + 8)}
        node_ended(run, own, node=node, first=node * 8)
    run.over().event(62, "supervisor_ended", rc=1)
    before = _bytes_read()
    told = verdict(run)
    read = _bytes_read() - before
    assert told.first is not None
    assert told.first.rank == 37
    # One log is counted through for its line number; of the others at most their ends are read.
    assert read < 10 * 1024 * 1024 * 2 + 64 * 64 * 1024


def _bytes_read() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


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


def test_what_the_kernel_said_counts_more_than_an_unknown_error_of_cuda(make: MadeRun) -> None:
    leave(make, 1, traceback("torch.AcceleratorError: CUDA error: unknown error"), code=1)
    log = make.layout.node(0, 0) / "launcher.log"
    log.write_text("[88.1] NVRM: Xid (PCI:0000:44:00): 79, pid=1, GPU has fallen off the bus.\n")
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    assert told.first is not None
    assert (told.first.rank, told.rule) == (1, "gpu-xid")


def test_the_newest_part_of_a_log_is_read_and_a_compressed_one_too(make: MadeRun) -> None:
    log = leave(make, 1, traceback("ModuleNotFoundError: No module named 'apex'"), code=1)
    newest = log.with_name("rank-00001.0002.log.gz")
    newest.write_bytes(gzip.compress(log.read_bytes()))
    log.write_text("")
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    assert told.rule == "module-missing"
    assert told.evidence[0].path.endswith("rank-00001.0002.log.gz")
    assert told.evidence[0].line == 4


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
