"""Who began it: the root apart from its echoes, on run folders of every kind."""

from __future__ import annotations

from pathlib import Path

from support.made_logs import leave, node_ended
from support.made_runs import MadeRun
from support.made_verdicts import (
    ABORT,
    CLOSED,
    KILL,
    TERM,
    TIMEOUT,
    WATCHDOG,
    over,
    traceback,
    verdict,
)

from orchestrator.diagnose.why import one_line
from orchestrator.runs.observe import observe_one


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


def test_one_sentence_says_it_all(make: MadeRun) -> None:
    leave(make, 1, traceback("ModuleNotFoundError: No module named 'apex'"), code=1)
    node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1)
    make.over().event(62, "supervisor_ended", rc=1)
    observed, _ = observe_one(make.layout, ask=False)
    told = one_line(observed)
    assert told.startswith("Rank 1 on node 0 (n0) exited with 1: the module apex is not installed")
    assert "\n" not in told


def test_what_the_kernel_said_counts_more_than_an_unknown_error_of_cuda(make: MadeRun) -> None:
    leave(make, 1, traceback("torch.AcceleratorError: CUDA error: unknown error"), code=1)
    log = make.layout.node(0, 0) / "launcher.log"
    log.write_text("[88.1] NVRM: Xid (PCI:0000:44:00): 79, pid=1, GPU has fallen off the bus.\n")
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    assert told.first is not None
    assert (told.first.rank, told.rule) == (1, "gpu-xid")


def test_a_checkpoint_that_one_rank_could_not_write_is_that_ranks(make: MadeRun) -> None:
    """torch's distributed checkpoint raises the same on all ranks, and names whose failed."""
    said = (
        "torch.distributed.checkpoint.api.CheckpointException: CheckpointException "
        "ranks:dict_keys([2])\nTraceback (most recent call last): (RANK 2)\n"
        '  File "/env/filesystem.py", line 4, in write_data\n'
        "PermissionError: [Errno 13] Permission denied: '/ckpt/2.distcp'"
    )
    for rank in range(4):
        leave(make, rank, traceback(said), code=1, t=50 + rank)
    told = over(node_ended(make, dict.fromkeys(range(4), 1), first=0))
    assert told.first is not None
    assert (told.first.rank, told.unsure) == (2, ())
    assert (told.rule, told.evidence[0].rank) == ("permission-denied", 0)


def test_what_no_rule_knows_of_one_ranks_checkpoint_is_told_as_it_stands(make: MadeRun) -> None:
    said = (
        "torch.distributed.checkpoint.api.CheckpointException: CheckpointException "
        "ranks:dict_keys([1])\nTraceback (most recent call last): (RANK 1)\n"
        "RuntimeError: unexpected pos 4 vs 2"
    )
    for rank in range(4):
        leave(make, rank, traceback(said), code=1, t=50 + rank)
    told = over(node_ended(make, dict.fromkeys(range(4), 1), first=0))
    assert told.first is not None
    assert (told.first.rank, told.rule) == (1, "save-of-another")
    assert told.sentence.endswith("RuntimeError: unexpected pos 4 vs 2.")


def test_what_an_extension_that_was_not_built_is_missed_by_is_an_echo(make: MadeRun) -> None:
    missed = "ImportError: /tmp/torch_extensions/py311/adam/adam.so: cannot open shared object file"
    for rank in (1, 2, 3):
        leave(make, rank, traceback(f"{missed}: No such file or directory"), code=1, t=50)
    leave(make, 0, traceback("RuntimeError: Error building extension 'adam'"), code=1, t=51)
    told = over(node_ended(make, {0: 1, 1: 1, 2: 1, 3: 1}, first=1))
    assert told.first is not None
    assert (told.first.rank, told.rule) == (0, "deepspeed-build")


def test_a_port_that_went_down_is_that_of_the_node_that_says_so(tmp_path: Path) -> None:
    """The peers' connections to it fail, too."""
    run = MadeRun(tmp_path, "two-aaaaaa", nodes=2, procs=2).submitted()
    run.started(0).started(1)
    peer = "n0:9:9 [0] net_ib.cc:9 NCCL WARN NET/IB : Got completion from peer 10.0.0.2<4> with"
    port = "n1:9:9 [0] net_ib.cc:9 NCCL WARN NET/IB : mlx5_3:1 Got async event : port error"
    for rank in range(4):
        before = f"{peer} status=12 opcode=0 len=0" if rank < 2 else port
        watchdog = WATCHDOG.format(rank=rank, seq=5)
        leave(run, rank, f"{before}\n{watchdog}", code=ABORT, node=rank // 2, t=50 + rank)
    node_ended(run, {0: ABORT, 1: ABORT}, first=0)
    told = over(node_ended(run, {2: ABORT, 3: ABORT}, node=1, first=2, t=61))
    assert told.first is not None
    assert (told.first.rank, told.node, told.rule) == (2, 1, "nccl-port-error")
    assert "mlx5_3:1" in told.cause


def test_a_node_whose_launch_failed_is_whom_the_others_missed(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "two-aaaaaa", nodes=2, procs=2).submitted()
    run.started(0).started(1)
    for rank in range(2):
        missed = "torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients."
        leave(run, rank, traceback(f"{missed} 2/4 clients joined."), code=1, t=59)
    folder = run.layout.node(0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    said = "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch"
    (folder / "launcher.log").write_text(f"{said}\n")
    node_ended(run, {0: 1, 1: 1}, first=0)
    told = over(node_ended(run, {}, node=1, reason="launch-failed", t=9))
    assert (told.first, told.node, told.rule) == (None, 1, "driver-mismatch")
    assert told.evidence[0].text == said


def test_a_launch_that_failed_after_a_rank_was_named_changes_nothing(tmp_path: Path) -> None:
    """It may have failed because of that one: here it ended last, with a rank of its own."""
    run = MadeRun(tmp_path, "two-aaaaaa", nodes=3, procs=2).submitted()
    for node in range(3):
        run.started(node)
    late = "RuntimeError: Rank 5 failed to pass monitoredBarrier in 60000 ms"
    for rank in range(2):
        leave(run, rank, traceback(late), code=1, t=50)
    leave(run, 2, "", code=TERM, node=1, t=60)
    leave(run, 4, "", code=TERM, node=2, t=60)
    leave(run, 5, "", code=TERM, node=2, t=60)
    folder = run.layout.node(0, 1)
    (folder / "launcher.log").write_text("torch.distributed.DistNetworkError: Broken pipe\n")
    node_ended(run, {0: 1, 1: 1}, first=0, t=51)
    node_ended(run, {2: TERM}, node=1, reason="launch-failed", t=61)
    told = over(node_ended(run, {4: TERM, 5: TERM}, node=2, reason="terminated", t=61))
    assert told.first is not None
    assert (told.first.rank, told.node, told.rule) == (5, 2, "monitored-barrier")
