"""What state the evidence amounts to."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runs.attempts import restarts, resumed
from orchestrator.runs.case import Evidence
from orchestrator.runs.events import Event
from orchestrator.runs.process import Process
from orchestrator.runs.records import RunRecord
from orchestrator.runs.reduce import reduce
from orchestrator.runs.state import RunState, State
from orchestrator.runs.submissions import record_now
from orchestrator.schedulers.base import JobInfo, JobState

HERE = {"host": "here", "boot_id": "b", "pid": 7, "start": 99}
NOW = 1000.0


def record(nodes: int = 1, procs: int = 2, scheduler: str = "slurm") -> RunRecord:
    return RunRecord("r-aaaaaa", "r", 1.0, scheduler, "torchrun", nodes, procs, nodes * procs)


def event(t: float, kind: str, **fields: Any) -> Event:
    return Event(t, kind, fields)


def submitted(job: str = "12") -> list[Event]:
    return [event(1, "intent", **HERE), event(2, "submitted", job_id=job)]


def started(node: int = 0, attempt: int = 0, t: float = 10) -> list[Event]:
    return [event(t, "node_started", attempt=attempt, node=node, host=f"n{node}", pid=1)]


def ended(
    codes: dict[str, int],
    *,
    node: int = 0,
    attempt: int = 0,
    t: float = 20,
    reason: str = "completed",
    failure: dict[str, Any] | None = None,
) -> list[Event]:
    fields = {"attempt": attempt, "node": node, "rc": int(reason != "completed")}
    return [
        event(t, "node_ended", **fields, reason=reason, ranks=codes, first_failure=failure),
    ]


def over(
    end_class: str = "failed",
    *,
    attempt: int = 0,
    t: float = 22,
    where: str | None = None,
    message: str = "",
) -> list[Event]:
    """What the supervisor says of an attempt; `where` says that another follows."""
    said = {"attempt": attempt, "class": end_class, "message": message, "nodes_failed": []}
    return [event(t, "attempt_ended", **said, retry=where is not None, counted=True, where=where)]


def failed_rank(rank: int, t: float, code: int = 1, message: str = "") -> dict[str, Any]:
    return {"rank": rank, "code": code, "signal": None, "t": t, "message": message}


def judge(
    events: list[Event],
    *,
    of: RunRecord | None = None,
    job: JobState | None = None,
    why: str = "",
    alive: bool | None = None,
    heartbeat: float | None = None,
) -> RunState:
    info = JobInfo("12", job, why) if job else None
    evidence = Evidence(of or record(), sorted(events, key=lambda e: e.t), info, heartbeat)
    return reduce(evidence, now=NOW, alive=lambda _: alive)


def supervised(*, t: float = 3) -> list[Event]:
    return [*submitted("local-here-7"), event(t, "supervisor_started", **HERE)]


def test_a_run_is_completed_when_every_rank_of_every_node_ended_with_0() -> None:
    events = submitted()
    for node in range(2):
        events += started(node) + ended({str(2 * node): 0, str(2 * node + 1): 0}, node=node)
    state = judge(events, of=record(nodes=2))
    assert (state.state, state.final) == (State.COMPLETED, True)
    assert state.reason == "All 4 ranks exited with 0."


@pytest.mark.parametrize("missing", ["a rank", "a node", "its reason"])
def test_a_run_with_anything_missing_is_not_completed(missing: str) -> None:
    codes = {"0": 0} if missing == "a rank" else {"0": 0, "1": 0}
    reason = "launch-failed" if missing == "its reason" else "completed"
    events = submitted() + started() + ended(codes, reason=reason)
    of = record(nodes=2) if missing == "a node" else record()
    assert judge(events, of=of).state is not State.COMPLETED


def test_nodes_that_trained_a_copy_each_have_not_completed_the_run() -> None:
    events = submitted()
    for node in range(2):
        events += started(node) + ended({"0": 0, "1": 0}, node=node)
    state = judge(events, of=record(nodes=2))
    assert (state.state, state.reason) == (State.FAILED, "2 of 4 ranks left no exit record.")


def test_no_event_at_all_is_unknown_and_no_failure() -> None:
    state = judge([])
    assert (state.state, state.final) == (State.UNKNOWN, False)


def test_an_intent_alone_is_a_submission_under_way() -> None:
    assert judge(submitted()[:1]).state is State.SUBMITTING


def test_a_refused_submission_is_a_launch_error_in_the_schedulers_words() -> None:
    events = [*submitted()[:1], event(2, "submit_failed", message="invalid partition gpu")]
    state = judge(events)
    assert (state.state, state.final) == (State.LAUNCH_ERROR, True)
    assert state.reason == "Invalid partition gpu."


def test_a_job_that_started_refutes_a_submission_called_failed() -> None:
    events = [*submitted()[:1], event(2, "submit_failed", message="socket timed out")]
    events += [event(3, "job_started", job_id="12", attempt=0, host="n0"), *started()]
    state = judge(events, job=JobState.RUNNING)
    assert (state.state, state.job_id) == (State.RUNNING, "12")


def test_the_earliest_failure_over_all_nodes_is_blamed() -> None:
    events = submitted() + started(0) + started(1)
    late = failed_rank(1, t=19, message="RuntimeError: connection reset")
    early = failed_rank(2, t=15, message="ValueError: bad batch")
    events += ended({"0": 0, "1": 1}, node=0, t=21, reason="rank-failed", failure=late)
    events += ended({"2": 1, "3": -15}, node=1, t=20, reason="rank-failed", failure=early)
    state = judge(events + over(), of=record(nodes=2))
    assert (state.state, state.final) == (State.FAILED, True)
    assert state.reason == "Rank 2 on node 1 exited with 1: ValueError: bad batch."
    assert state.ended == 21


def test_nodes_that_were_stopped_because_another_failed_are_not_the_story() -> None:
    events = submitted() + started(0) + started(1)
    first = failed_rank(1, t=15, message="ValueError: bad batch")
    stopped = failed_rank(2, t=16, code=-15)
    events += ended({"0": -15, "1": 1}, node=1, t=17, reason="rank-failed", failure=first)
    events += ended({"2": -15, "3": -15}, node=0, t=18, reason="terminated", failure=stopped)
    state = judge(events + over(), of=record(nodes=2))
    assert (state.state, state.final) == (State.FAILED, True)
    assert state.reason == "Rank 1 on node 1 exited with 1: ValueError: bad batch."


def test_a_failed_node_does_not_end_the_run_before_the_others_have() -> None:
    events = submitted() + started(0) + started(1)
    first = failed_rank(0, t=12)
    events += ended({"0": 1}, node=0, t=13, reason="rank-failed", failure=first)
    assert judge(events, of=record(nodes=2), job=JobState.RUNNING).state is State.RUNNING
    ended_ = judge(events, of=record(nodes=2), job=JobState.FAILED)
    assert (ended_.state, ended_.final) == (State.FAILED, True)


@pytest.mark.parametrize("reason", ["launch-failed", "setup-failed", "check-failed"])
def test_an_end_before_the_ranks_is_a_launch_error(reason: str) -> None:
    state = judge(submitted() + started() + ended({}, reason=reason) + over("launch-error"))
    assert (state.state, state.final) == (State.LAUNCH_ERROR, True)
    assert state.reason.startswith("Node 0: ")


@pytest.mark.parametrize(
    ("job", "state", "final"),
    [
        (JobState.OUT_OF_MEMORY, State.OUT_OF_MEMORY, True),
        (JobState.TIME_LIMIT, State.TIME_LIMIT, True),
        (JobState.PREEMPTED, State.PREEMPTED, False),
        (JobState.NODE_FAILURE, State.NODE_FAILURE, False),
        (JobState.CANCELLED, State.CANCELLED, True),
    ],
)
def test_the_scheduler_names_the_ends_that_it_alone_knows(
    job: JobState, state: State, final: bool
) -> None:
    killed = failed_rank(1, t=15, code=-9)
    events = submitted() + started() + ended({"1": -9}, reason="rank-failed", failure=killed)
    judged = judge(events, job=job)
    assert (judged.state, judged.final) == (state, final)
    assert "rank 1 on node 0 was killed by SIGKILL" in judged.reason


def test_a_sigkill_is_not_judged_for_good_before_the_scheduler_was_asked() -> None:
    killed = failed_rank(1, t=15, code=-9)
    events = submitted() + started() + ended({"1": -9}, reason="rank-failed", failure=killed)
    assert not judge(events + over()).final
    assert judge(events, job=JobState.FAILED).final
    exited = failed_rank(1, t=15, code=1)
    events = submitted() + started() + ended({"1": 1}, reason="rank-failed", failure=exited)
    assert not judge(events).final
    assert judge(events + over()).final


def test_the_schedulers_last_word_is_remembered_until_a_new_attempt_starts() -> None:
    killed = failed_rank(1, t=15, code=-9)
    events = submitted() + started() + ended({"1": -9}, reason="rank-failed", failure=killed)
    events.append(event(30, "job_ended", state="out-of-memory", reason="OUT_OF_MEMORY"))
    assert judge(events).state is State.OUT_OF_MEMORY
    assert judge(events).final
    again = events + started(attempt=1, t=40)
    assert judge(again, job=JobState.RUNNING).state is State.RUNNING
    assert judge(again, job=JobState.RUNNING).attempts == (0, 1)


def test_a_node_whose_clock_is_ahead_does_not_undo_the_schedulers_last_word() -> None:
    noted = event(30, "job_ended", state="failed", reason="FAILED", attempt=0)
    state = judge([*submitted(), *started(t=90), noted])
    assert (state.state, state.final) == (State.FAILED, True)
    assert judge([*submitted(), *started(t=90), *started(attempt=1, t=20), noted]).final is False


def test_only_the_newest_attempt_decides() -> None:
    stopped = failed_rank(0, t=15, code=-15)
    events = submitted() + started() + ended({"0": -15}, reason="terminated", failure=stopped)
    assert judge(events, job=JobState.PENDING).state is State.PENDING
    events += started(attempt=1, t=30) + ended({"0": 0, "1": 0}, attempt=1, t=40)
    state = judge(events)
    assert (state.state, state.attempt) == (State.COMPLETED, 1)


def test_a_cancel_before_the_end_makes_a_cancelled_run() -> None:
    stopped = failed_rank(0, t=16, code=-15)
    events = submitted() + started() + [event(15, "cancel", user="ann")]
    events += ended({"0": -15, "1": -15}, reason="terminated", failure=stopped)
    state = judge(events)
    assert (state.state, state.final, state.reason) == (State.CANCELLED, True, "Cancelled by ann.")


def test_a_cancel_after_the_failure_changes_nothing() -> None:
    first = failed_rank(0, t=12, message="ValueError")
    events = submitted() + started() + [event(15, "cancel", user="ann")]
    events += ended({"0": 1, "1": -15}, reason="rank-failed", failure=first)
    assert judge(events).state is State.FAILED


def test_a_cancel_that_no_scheduler_has_heard_of_ends_no_run_that_is_to_go_on() -> None:
    """Its client was killed before it came to that."""
    events = submitted() + started() + ended({"0": -15, "1": -15}, reason="terminated")
    events += [*over("preempted", where="requeue"), event(30, "cancel", user="ann")]
    waiting = judge(events, job=JobState.PENDING)
    assert (waiting.state, waiting.final) == (State.PENDING, False)
    assert "the scheduler has not heard of that" in waiting.reason
    assert judge(events, job=JobState.CANCELLED).state is State.CANCELLED
    assert judge(events, job=JobState.FAILED).state is State.CANCELLED
    forgotten = judge(events, job=JobState.UNKNOWN)  # by the scheduler, whatever it heard
    assert (forgotten.state, forgotten.final) == (State.CANCELLED, False)


def test_the_job_is_the_newest_that_anybody_named() -> None:
    def job(*events: Event) -> str | None:
        return judge(sorted(events)).job_id

    def begun(t: float, job_id: str, attempt: int) -> Event:
        return event(t, "job_started", job_id=job_id, attempt=attempt)

    first = [*submitted("12"), begun(10, "12", 0)]
    assert job(*first, event(20, "submitted", job_id="13")) == "13"
    # Nobody lived to write what was submitted, and the job has begun.
    assert job(*first, begun(30, "13", 1)) == "13"
    assert job(*first, begun(30, "12", 1)) == "12"
    # The clock of the client that submitted the first is ahead.
    ahead = [event(1, "intent"), event(700, "submitted", job_id="12"), begun(10, "12", 0)]
    assert job(*ahead, event(20, "submitted", job_id="13")) == "13"
    assert job(*ahead, event(20, "submitted", job_id="13"), begun(30, "13", 1)) == "13"


def test_a_run_that_completed_despite_a_cancel_is_completed() -> None:
    events = submitted() + started() + [event(15, "cancel", user="ann")]
    assert judge(events + ended({"0": 0, "1": 0})).state is State.COMPLETED


def test_a_cancelled_run_is_running_until_its_end_is_evident() -> None:
    events = submitted() + started() + [event(15, "cancel", user="ann")]
    state = judge(events, job=JobState.RUNNING)
    assert (state.state, state.reason) == (State.RUNNING, "Cancelled; its processes are ending.")
    assert judge(events, job=JobState.CANCELLED).state is State.CANCELLED


def test_a_cancel_that_the_scheduler_turned_down_explains_nothing() -> None:
    events = submitted() + started() + [event(15, "cancel", user="ann")]
    events += [event(16, "cancel_failed", message="SLURM does not answer")]
    assert judge(events, job=JobState.RUNNING).reason == "Running."
    failed = events + ended({"0": 1, "1": 0}, reason="rank-failed", failure=failed_rank(0, t=18))
    assert judge(failed).state is State.FAILED
    again = judge([*events, event(17, "cancel", user="bob")], job=JobState.CANCELLED)
    assert again.reason == "Cancelled by bob."


def test_a_job_that_ptx_cancelled_after_a_failure_was_not_cancelled_by_others() -> None:
    events = submitted() + started() + [event(15, "cancel", user="ann")]
    events += ended({"0": 1, "1": -15}, reason="rank-failed", failure=failed_rank(0, t=12))
    state = judge(events, job=JobState.CANCELLED)
    assert state.reason.startswith("Cancelled by ann; first to end was rank 0")


def test_a_pending_job_says_what_it_waits_for() -> None:
    state = judge(submitted(), job=JobState.PENDING, why="Resources")
    assert (state.state, state.reason) == (State.PENDING, "Waiting in the queue (Resources).")


def test_a_run_that_waits_for_gpus_says_how_many() -> None:
    events = [*supervised(), event(4, "waiting_for_gpus", wanted=2, free=1)]
    state = judge(events, of=record(scheduler="local"), alive=True)
    assert (state.state, state.reason) == (State.PENDING, "Waiting for 2 GPUs (1 free).")
    bound = [*events, event(5, "gpus_bound", devices=["GPU-1"]), *started()]
    assert judge(bound, of=record(scheduler="local"), alive=True).state is State.RUNNING


def test_a_dead_supervisor_without_an_end_means_failed() -> None:
    begun = supervised() + started()
    # Its agent ends with it, and may have said so by now.
    for events in (begun, begun + ended({"0": -15, "1": -15}, reason="terminated")):
        state = judge(events, alive=False)
        assert (state.state, state.reason) == (State.FAILED, "The supervisor died.")


def test_a_supervisor_on_another_machine_cannot_be_judged() -> None:
    state = judge(supervised() + started(), alive=None, job=JobState.UNKNOWN)
    assert (state.state, state.final) == (State.UNKNOWN, False)


def test_a_killed_agent_is_named() -> None:
    events = [*supervised(), *started(), event(30, "supervisor_ended", rc=-9)]
    state = judge(events, alive=False)
    assert (state.state, state.reason) == (State.FAILED, "The agent was killed by SIGKILL.")


def test_a_fresh_heartbeat_speaks_for_a_job_that_the_scheduler_does_not_know() -> None:
    events = submitted() + started()
    alive = judge(events, job=JobState.UNKNOWN, heartbeat=NOW - 20)
    assert alive.state is State.RUNNING
    silent = judge(events, job=JobState.UNKNOWN, heartbeat=NOW - 500)
    assert silent.state is State.UNKNOWN
    assert "silent for 500 s" in silent.reason


def test_a_job_called_completed_without_its_records_is_unknown() -> None:
    state = judge(submitted() + started(), job=JobState.COMPLETED)
    assert (state.state, state.final) == (State.UNKNOWN, False)


def test_a_job_that_failed_before_any_node_started_is_a_launch_error() -> None:
    state = judge(submitted(), job=JobState.FAILED, why="NonZeroExitCode 1:0")
    assert state.state is State.LAUNCH_ERROR
    assert "NonZeroExitCode 1:0" in state.reason


def test_every_reason_is_one_sentence() -> None:
    killed = failed_rank(1, t=15, message="line one\nline two")
    whole = submitted() + started() + ended({"1": 1}, reason="rank-failed", failure=killed)
    for job in (None, *JobState):
        for length in range(len(whole) + 1):
            reason = judge(whole[:length], job=job).reason
            assert reason.endswith(".") and "\n" not in reason and reason[0].isupper(), reason


def test_the_order_in_which_files_were_read_changes_nothing() -> None:
    events = submitted() + started() + ended({"0": 0, "1": 0})
    states = {judge(list(order)).state for order in permutations(events)}
    assert states == {State.COMPLETED}


KINDS = (
    "intent submitted submit_failed cancel job_started job_ended waiting_for_gpus gpus_bound "
    "supervisor_started supervisor_ended node_started node_ended attempt_ended requeue other"
)
KEYS = "attempt node rc reason ranks first_failure job_id state host boot_id pid start"
kinds = st.sampled_from(KINDS.split())
words = st.sampled_from(["", "0", "1", "²", "completed", "rank-failed", "terminated", "12", "\x00"])
values = st.none() | st.booleans() | st.integers(-300, 300) | words
fields = st.dictionaries(
    st.sampled_from(
        [
            "attempt",
            "node",
            "rc",
            "reason",
            "ranks",
            "first_failure",
            "job_id",
            "state",
            "host",
            "pid",
            "class",
            "where",
            "retry",
            "submission",
        ]
    ),
    values | st.dictionaries(words, values, max_size=3),
    max_size=6,
)


@given(
    st.lists(st.builds(Event, st.floats(0, 1e9), kinds, fields), max_size=12),
    st.none() | st.sampled_from(list(JobState)),
)
def test_no_event_whatever_its_fields_can_break_the_reducer(
    events: list[Event], job: JobState | None
) -> None:
    state = judge(events, job=job)
    assert state.reason
    if state.state is State.COMPLETED:
        assert len(state.ranks) == 2


def test_a_process_that_an_event_does_not_name_whole_is_no_process() -> None:
    assert Process.of(HERE) == Process("here", "b", 7, 99)
    assert Process.of({**HERE, "start": None}) is None


def test_a_failure_is_not_final_before_it_is_said_what_follows() -> None:
    bad = failed_rank(1, t=15, message="ValueError: x")
    events = supervised() + started() + ended({"1": 1}, reason="rank-failed", failure=bad)
    waiting = judge(events, alive=True)
    assert (waiting.state, waiting.final) == (State.RUNNING, False)
    assert waiting.reason == "Ending: rank 1 on node 0 exited with 1: ValueError: x."
    done = judge(events + over(), alive=True)
    assert (done.state, done.final) == (State.FAILED, True)
    assert done.reason == "Rank 1 on node 0 exited with 1: ValueError: x."


@pytest.mark.parametrize(
    ("where", "state", "words"),
    [
        ("allocation", State.RUNNING, "Restarting: attempt 0 ended, failed"),
        ("requeue", State.PENDING, "To be queued again: attempt 0 ended, failed"),
        ("new-job", State.PENDING, "To be submitted again: attempt 0 ended, failed"),
    ],
)
def test_an_attempt_that_is_to_be_followed_ends_nothing(
    where: str, state: State, words: str
) -> None:
    bad = failed_rank(1, t=15)
    events = submitted() + started() + ended({"1": 1}, reason="rank-failed", failure=bad)
    events += over(where=where, message="rank 1 exited with 1")
    judged = judge(events, job=JobState.RUNNING)
    assert (judged.state, judged.final) == (state, False)
    assert judged.reason == f"{words}: rank 1 exited with 1."
    # What was to follow never can.
    gone = judge([*events, event(30, "supervisor_ended", rc=1)])
    assert (gone.state, gone.final) == (State.FAILED, True)
    assert "is gone" in gone.reason
    # The job is over in the scheduler's eyes: it may be seen too early.
    assert not judge(events, job=JobState.FAILED).final
    # Cancelled while it waited to be started again.
    cancelled = [*events, event(25, "cancel", user="ann")]
    assert judge(cancelled, job=JobState.CANCELLED).state is State.CANCELLED
    assert judge([*cancelled, event(30, "supervisor_ended", rc=-15)]).state is State.CANCELLED


def test_the_next_attempt_takes_the_word_from_the_one_before() -> None:
    events = submitted() + started() + over("node-failure", where="requeue")
    assert judge(events, job=JobState.PENDING).state is State.PENDING
    events += started(attempt=1, t=40)
    assert judge(events, job=JobState.RUNNING).state is State.RUNNING
    events += ended({"0": 0, "1": 0}, attempt=1, t=50)
    state = judge(events + over("completed", attempt=1, t=51))
    assert (state.state, state.attempts) == (State.COMPLETED, (0, 1))


@pytest.mark.parametrize("end_class", ["hang", "time-limit", "preempted", "node-failure"])
def test_an_end_that_its_supervisor_has_named_needs_no_scheduler(end_class: str) -> None:
    killed = failed_rank(0, t=15, code=-9)
    events = submitted() + started() + ended({"0": -9}, reason="hang", failure=killed)
    state = judge(events + over(end_class, message="no step for 600 s"))
    wanted = State.FAILED if end_class == "hang" else State(end_class)
    assert (state.state, state.final, state.reason) == (wanted, True, "No step for 600 s.")


def test_an_unknown_end_leaves_the_word_to_the_scheduler() -> None:
    events = submitted() + started() + over("unknown")
    assert judge(events, job=JobState.OUT_OF_MEMORY).state is State.OUT_OF_MEMORY
    assert not judge(events, job=JobState.UNKNOWN).final


def test_a_preempted_job_that_was_cancelled_does_not_come_back() -> None:
    events = [*submitted(), *started(), event(20, "cancel", user="ann")]
    assert judge(submitted() + started(), job=JobState.PREEMPTED).final is False
    assert judge(events, job=JobState.PREEMPTED).final


def again(number: int = 1, attempt: int = 1, t: float = 100) -> list[Event]:
    return [event(t, "intent", submission=number, attempt=attempt, nodes=2, **HERE)]


def failed_once() -> list[Event]:
    bad = failed_rank(1, t=15)
    events = supervised() + started() + ended({"1": 1}, reason="rank-failed", failure=bad)
    return [*events, *over(), event(23, "supervisor_ended", rc=1)]


def test_a_resumed_run_stands_as_its_newest_submission_does() -> None:
    events = failed_once()
    assert judge(events, alive=False).state is State.FAILED
    resuming = events + again()
    assert judge(resuming, alive=False).state is State.SUBMITTING
    waiting = [*resuming, event(101, "submitted", submission=1, job_id="13")]
    state = judge(waiting, job=JobState.PENDING)
    assert (state.state, state.job_id, state.attempt, state.attempts) == (
        State.PENDING,
        "13",
        None,
        (0,),
    )
    begun = [*waiting, event(102, "supervisor_started", **HERE), *started(attempt=1, t=103)]
    assert judge(begun, alive=True).state is State.RUNNING
    done = begun + ended({"0": 0, "1": 0}, attempt=1, t=110)
    state = judge(done, alive=True)
    assert (state.state, state.attempts) == (State.COMPLETED, (0, 1))


def test_a_resumption_that_came_to_nothing_leaves_the_run_as_it_was() -> None:
    events = [*failed_once(), *again(), event(101, "submit_failed", submission=1, message="no")]
    state = judge(events, alive=False)
    assert (state.state, state.final, state.attempt) == (State.FAILED, True, 0)
    assert "Rank 1" in state.reason
    twice = events + again(2, t=200)
    assert judge(twice, alive=False).state is State.SUBMITTING


def test_a_cancel_of_the_submission_before_does_not_cancel_the_next() -> None:
    events = supervised() + started() + [event(15, "cancel", user="ann")]
    events += ended({"0": -15, "1": -15}, reason="terminated")
    events += [event(23, "supervisor_ended", rc=-15)]
    assert judge(events, alive=False).state is State.CANCELLED
    events += [*again(), event(101, "supervisor_started", **HERE), *started(attempt=1, t=103)]
    assert judge(events, alive=True).state is State.RUNNING


@pytest.mark.parametrize("t", [15, 500])
def test_a_cancel_is_of_the_submission_that_it_names_whatever_clocks_say(t: float) -> None:
    events = [*failed_once(), *again(), event(101, "submitted", submission=1, job_id="13")]
    before = [*events, event(t, "cancel", user="ann", submission=0)]
    assert judge(before, job=JobState.CANCELLED).reason == "The job was cancelled outside ptx."
    cancel = event(t, "cancel", user="ann", submission=1)
    assert judge([*before, cancel], job=JobState.CANCELLED).reason == "Cancelled by ann."
    taken_back = [*before, cancel, event(t + 1, "cancel_failed", submission=1)]
    assert "outside" in judge(taken_back, job=JobState.CANCELLED).reason


def test_a_job_that_continues_the_run_by_itself_belongs_to_the_newest_submission() -> None:
    events = [*failed_once(), *again(), event(101, "submitted", submission=1, job_id="13")]
    events += started(attempt=1, t=103) + over("time-limit", attempt=1, t=110, where="new-job")
    events += [event(111, "submitted", job_id="14")]
    state = judge(events, job=JobState.PENDING)
    assert (state.job_id, state.state) == ("14", State.PENDING)


def test_a_resumed_run_has_the_size_that_it_was_resumed_with() -> None:
    events = [*failed_once(), *again()]
    assert record_now(record(), failed_once()).nodes == 1
    now = record_now(record(), events)
    assert (now.nodes, now.procs_per_node, now.scheduler) == (2, 2, "slurm")
    withdrawn = [*events, event(101, "submit_failed", submission=1, message="no")]
    assert record_now(record(), withdrawn).nodes == 1


def test_restarts_are_counted_by_what_came_before_and_people_are_no_restarts() -> None:
    events = submitted() + started() + over("node-failure", where="requeue")
    events += started(attempt=1, t=30) + over("failed", attempt=1, t=40)
    events += [*again(1, 2), *started(attempt=2, t=110), *started(attempt=3, t=120)]
    assert restarts(events) == {"node-failure": 1, "unknown": 1}
    assert resumed(events) == {2}
