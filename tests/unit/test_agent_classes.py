"""The table of exit classes: from evidence to verdict."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestrator.agent.classes import Evidence, Past, Policy, Verdict, judge, pause, twice_failed

ALL = Policy(2, ("preempted", "time-limit", "node-failure", "failed"), 1.0)
HOSTS = ("n0", "n1")


def ended(reason: str, message: str | None = None, code: int = 1, **more: Any) -> dict[str, Any]:
    failure = {"code": code, "signal": None, "t": 5.0, "message": message} if message else None
    kind = re.match(r"[\w.]+(?=: )", message or "")
    if failure is not None:
        failure["exception"] = kind and kind[0]
    return {"reason": reason, "first_failure": failure, "message": None, **more}


def verdict(*nodes: dict[str, Any] | None, past: Past = Past(), **evidence: Any) -> Verdict:  # noqa: B008
    left = {rank: event for rank, event in enumerate(nodes) if event is not None}
    return judge(Evidence(HOSTS[: len(nodes)], left, len(nodes), **evidence), past, ALL)


CRASH = ended("rank-failed", "RuntimeError: loss is nan", stepped=True)
STOPPED = ended("stopped", stepped=True)
IDLE = ended("stopped", stepped=False)
PORT = ended("setup-failed") | {
    "message": "port 10002, where the ranks are to meet, is in use on n0"
}
ROWS: dict[str, tuple[Verdict, tuple[str, bool, bool, str | None]]] = {
    "all done": (
        verdict(ended("completed"), ended("completed")),
        ("completed", False, False, None),
    ),
    "a crash": (verdict(CRASH, ended("terminated")), ("failed", True, True, "allocation")),
    "saved after the warning": (
        verdict(STOPPED, STOPPED, warned=True),
        ("time-limit", True, False, "requeue"),
    ),
    "saved before its first step": (
        verdict(IDLE, IDLE, warned=True),
        ("time-limit", True, True, "requeue"),
    ),
    "saved late, of a script that reports no step": (
        verdict(IDLE, IDLE, warned=True, seconds=600.0),
        ("time-limit", True, False, "requeue"),
    ),
    "its port was another job's": (
        verdict(PORT, ended("terminated")),
        ("launch-error", True, False, "allocation"),
    ),
    "let the warning pass": (
        verdict(ended("terminated"), ended("terminated"), warned=True),
        ("time-limit", True, True, "requeue"),
    ),
    "warned by its peers first": (
        verdict(STOPPED, ended("rank-failed", "stopped", code=143), warned=True),
        ("time-limit", True, False, "requeue"),
    ),
    "a crash while it saves": (
        verdict(CRASH, STOPPED, warned=True),
        ("failed", True, True, "allocation"),
    ),
    "the limit was faster": (
        verdict(ended("terminated"), None, warned=True, told="cancelled"),
        ("time-limit", True, True, "requeue"),
    ),
    "preempted": (
        verdict(STOPPED, STOPPED, told="preempted"),
        ("preempted", True, False, "requeue"),
    ),
    "cancelled": (verdict(STOPPED, STOPPED, told="cancelled"), ("cancelled", False, False, None)),
    "told to stop by nobody known": (verdict(STOPPED, STOPPED), ("cancelled", False, False, None)),
    "a silent node": (verdict(CRASH, None), ("node-failure", True, False, "allocation")),
    "a node without a sign of life": (
        verdict(ended("hang"), None, lifeless={1: 240.0}),
        ("node-failure", True, False, "allocation"),
    ),
    "no agent spoke": (verdict(None, None), ("node-failure", True, False, "allocation")),
    "no host is known": (verdict(), ("launch-error", True, True, "allocation")),
    "GPU memory": (
        verdict(ended("rank-failed", "torch.OutOfMemoryError: CUDA out of memory.")),
        ("out-of-memory", False, False, None),
    ),
    "an import": (
        verdict(ended("rank-failed", "ModuleNotFoundError: No module named 'x'")),
        ("failed", False, False, None),
    ),
    "usage": (verdict(ended("rank-failed", "error: x", code=2)), ("failed", False, False, None)),
    "a hang": (verdict(ended("hang"), ended("terminated")), ("hang", True, True, "allocation")),
    "a broken node": (verdict(ended("check-failed")), ("launch-error", True, True, "allocation")),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_table(row: str) -> None:
    got, wanted = ROWS[row]
    assert (got.name, got.retry, got.counted, got.where) == wanted, got


def test_every_reason_that_the_spec_leaves_out_ends_the_run() -> None:
    nothing = ALL._replace(on=())
    evidence = Evidence(HOSTS, {0: CRASH, 1: CRASH}, 2)
    for told in (None, "preempted", "node-failure"):
        assert not judge(evidence._replace(told=told), Past(), nothing).retry


def test_agents_that_die_each_time_are_not_started_for_ever() -> None:
    for lost, counted in ((4, False), (5, True)):
        assert verdict(None, None, past=Past(lost=lost)).counted is counted
    ended_for_good = verdict(None, None, past=Past(counted=2, lost=5))
    assert not ended_for_good.retry
    assert "restart.max (2) is used up" in ended_for_good.message
    known = verdict(None, None, past=Past(counted=2, lost=5), told="node-failure")
    assert (known.retry, known.counted) == (True, False), "SLURM knows of the node"


def test_ports_in_use_are_free_a_few_times_where_the_next_is_another() -> None:
    first = verdict(PORT)
    again = verdict(PORT, past=Past(early=first.early, lost=1))
    assert not again.retry, "rendezvous.port of the spec: the same one each time"
    other = PORT | {"message": PORT["message"].replace("10002", "21745")}
    assert verdict(other, past=Past(early=first.early, lost=1)).retry
    assert verdict(other, past=Past(early=first.early, lost=5)).counted


def test_the_budget_is_for_what_counts() -> None:
    spent = Past(counted=2)
    assert not verdict(CRASH, past=spent).retry
    assert "restart.max (2) is used up" in verdict(CRASH, past=spent).message
    assert verdict(STOPPED, STOPPED, past=spent, told="preempted").retry
    assert verdict(STOPPED, STOPPED, past=spent, warned=True).retry
    assert not verdict(ended("terminated"), past=spent, warned=True).retry


def test_the_same_end_before_any_step_is_tried_once_more_only() -> None:
    first = verdict(ended("rank-failed", "ValueError: bad shard 0x7f01, port 31337", stepped=False))
    assert first.retry
    again = ended("rank-failed", "ValueError: bad shard 0x88aa, port 4242", stepped=False)
    second = verdict(again, past=Past(counted=1, early=first.early))
    assert not second.retry
    assert "the same way twice" in second.message
    other = ended("rank-failed", "ConnectionError: no route", stepped=False)
    assert verdict(other, past=Past(counted=1, early=first.early)).retry
    assert verdict(again, past=Past(counted=1, early=first.early), seconds=3600.0).retry
    late = dict(again, stepped=True)
    assert verdict(late, past=Past(counted=1, early=first.early)).retry


def printed(line: str) -> dict[str, Any]:
    """By a rank that exited with 1 and raised nothing."""
    event = ended("rank-failed", line, stepped=False)
    event["first_failure"]["exception"] = None
    return event


@pytest.mark.parametrize(
    "line",
    [
        "step 19 loss 1.100",
        "2026-11-21 10:00:00 INFO epoch 3 step 19: loss=1.1 lr=3e-4",
        " 40%|████      | 400/1000 [00:10<00:15, 40.1it/s]",
    ],
)
def test_two_progress_lines_are_not_the_same_failure_twice(line: str) -> None:
    """Of a script that tells ptx of no step: each time it came further."""
    first = verdict(printed(line), past=Past(counted=0))
    second = verdict(printed(line.replace("19", "1019")), past=Past(1, first.early))
    assert (first.retry, second.retry) == (True, True)


def test_a_script_that_told_of_no_step_is_not_said_to_have_made_none() -> None:
    first = verdict(printed("giving up: no shard 4"))
    again = verdict(printed("giving up: no shard 5"), past=Past(1, first.early))
    assert again.message == (
        "giving up: no shard 5; not started again: it failed the same way twice, each time within "
        "ten minutes of its start, and told ptx of no step (a script does that by touching "
        "$PTX_STEP_FILE)"
    )


def test_why_a_run_is_not_started_again_is_said_where_it_might_have_been() -> None:
    never = ALL._replace(max=0)
    broken = ended("rank-failed", "ImportError: no module x")
    for policy, said in ((ALL, True), (never, False)):
        got = judge(Evidence(HOSTS[:1], {0: broken}, 1), Past(), policy)
        assert ("not started again" in got.message) is said
    assert "restart.max (0)" not in judge(Evidence(HOSTS[:1], {0: CRASH}, 1), Past(), never).message


def test_an_import_error_that_a_rank_only_printed_is_no_reason_to_give_it_up() -> None:
    """As of a destructor at the end of Python: the rank failed by something else."""
    assert not verdict(ended("rank-failed", "ImportError: sys.meta_path is None")).retry
    assert verdict(printed("ImportError: sys.meta_path is None")).retry
    for code in (3, -9):  # the traceback of an optional module that is missing, hours before
        assert verdict(ended("rank-failed", "ImportError: no module x", code)).retry


ECC = "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"
LOST = "DistBackendError: NCCL error: remote process exited or there was a network error"
ECHOES = (
    LOST,
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by "
    "peer [10.0.0.1]:15039",
    "torch.distributed.DistNetworkError: Connection reset by peer",
    "ConnectionResetError: [Errno 104] Connection reset by peer",
)


def at(seconds: float, message: str, **more: Any) -> dict[str, Any]:
    """By its own node's clock."""
    event = ended("rank-failed", message, stepped=True)
    event["first_failure"] |= {"t": seconds, **more}
    return event


@pytest.mark.parametrize(
    ("failed", "said", "name", "blamed"),
    [
        (108.0, LOST, "hang", []),
        (99.0, LOST, "hang", []),  # by a clock that is behind
        (108.0, ECC, "hang", []),
        (99.0, ECC, "failed", ["n1"]),
    ],
)
def test_a_hang_is_one_though_a_node_that_heard_of_it_late_saw_its_ranks_fail(
    failed: float, said: str, name: str, blamed: list[str]
) -> None:
    got = verdict(ended("hang"), at(failed, said), hung=100.0, seconds=9000.0)
    assert (got.name, got.nodes_failed) == (name, blamed)


@pytest.mark.parametrize("behind", [-2.0, 0.0, 90.0])
@pytest.mark.parametrize("echo", ECHOES)
def test_whoever_only_missed_another_rank_is_not_blamed_whatever_its_clock_says(
    echo: str, behind: float
) -> None:
    got = verdict(at(101.0, ECC), at(102.0 - behind, echo))
    assert (got.message, got.nodes_failed) == (ECC, ["n0"])
    killed = at(100.0, "ended by SIGKILL", signal=9, code=-9)
    assert verdict(killed, at(102.0 - behind, echo)).nodes_failed == ["n0"]


@pytest.mark.parametrize("echo", ECHOES)
def test_an_echo_alone_is_a_failure_that_blames_no_host(echo: str) -> None:
    got = verdict(at(5.0, echo), at(6.0, LOST))
    assert (got.name, got.retry, got.nodes_failed, got.message) == ("failed", True, [], echo)


def test_ranks_of_several_nodes_that_a_watchdog_aborted_waited_for_each_other() -> None:
    aborted = {"signal": 6, "code": -6}
    first, second = at(5.0, "ended by SIGABRT", **aborted), at(6.0, "ended by SIGABRT", **aborted)
    assert verdict(first, second).nodes_failed == []
    assert verdict(first, at(6.0, ECC)).nodes_failed == ["n1"]
    assert verdict(at(6.0, LOST), first).nodes_failed == ["n1"]


def test_ranks_that_their_launcher_told_to_end_came_after_all_that_failed_by_themselves() -> None:
    told = at(4.0, "ended by SIGTERM", signal=15, code=-15)
    for said in ("ValueError: of the script", LOST):
        got = verdict(at(5.0, said), told)
        assert (got.message, got.nodes_failed) == (said, [])
    assert verdict(told, STOPPED).message == "ended by SIGTERM"


@pytest.mark.parametrize(
    ("said", "blamed"),
    [
        ("unhandled cuda error, NCCL version 2.26.2\nncclUnhandledCudaError: Call failed.", ["n0"]),
        ("unhandled system error\nLast error:\nCall to ibv_create_qp failed", ["n0"]),
        ("invalid usage\nLast error:\nDuplicate GPU detected : rank 1 and rank 0", []),
    ],
)
def test_of_what_nccl_says_only_the_machines_part_blames_it(said: str, blamed: list[str]) -> None:
    got = verdict(at(5.0, f"DistBackendError: NCCL error in: NCCLUtils.cpp:77, {said}"), STOPPED)
    assert got.nodes_failed == blamed


def test_the_machine_is_blamed_for_silence_signals_and_its_devices() -> None:
    assert verdict(CRASH, None).nodes_failed == ["n1"]
    assert verdict(CRASH, STOPPED).nodes_failed == []
    ecc = ended("rank-failed", "RuntimeError: CUDA error: uncorrectable ECC error encountered")
    assert verdict(STOPPED, ecc).nodes_failed == ["n1"]
    told = verdict(None, STOPPED, told="node-failure", down=("n0",))
    assert told.nodes_failed == ["n0"]
    assert verdict(None, STOPPED, told="preempted").nodes_failed == []


def test_a_node_that_gave_no_sign_of_life_is_named_and_blamed_and_no_other() -> None:
    told = verdict(ended("hang"), ended("hang"), lifeless={1: 240.0})
    assert told.message == "node 1 (n1) has given no sign of life for 4 minutes"
    assert told.nodes_failed == ["n1"]
    both = verdict(None, None, lifeless={1: 97.0, 0: 95.2})
    assert both.message == "node 0 (n0), node 1 (n1) have given no sign of life for 97 seconds"
    late = verdict(ended("completed"), ended("completed"), lifeless={1: 240.0})
    assert late.name == "completed", "it came back to life, and through"


@pytest.mark.parametrize(("later", "blamed"), [(1.0, ["n1"]), (9.0, [])])
def test_a_rank_that_was_killed_outright_came_before_those_that_missed_it_at_once(
    later: float, blamed: list[str]
) -> None:
    missed = ended("rank-failed", "ConnectionError: a rank is gone", stepped=True)
    killed = ended("rank-failed", "killed", stepped=True)
    killed["first_failure"] |= {"code": None, "signal": 9, "t": 5.0 + later}
    assert verdict(missed, killed).nodes_failed == blamed


def test_hosts_are_left_out_after_two_failures() -> None:
    assert twice_failed({"n0": 1, "n1": 2, "n2": 3}) == ["n1", "n2"]


def test_the_pause_doubles_up_to_ten_minutes() -> None:
    assert [pause(ALL, retries) for retries in range(4)] == [1, 2, 4, 8]
    assert pause(ALL._replace(backoff=30.0), 1000) == 600
    assert pause(ALL._replace(backoff=3600.0), 5) == 3600
