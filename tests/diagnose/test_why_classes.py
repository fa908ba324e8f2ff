"""What the end was, by more than the ranks' words: memory, scheduler, nodes, setup lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun
from support.made_verdicts import CLOSED, KILL, TERM, over, traceback, verdict


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
