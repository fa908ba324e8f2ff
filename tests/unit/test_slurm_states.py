import pytest

from orchestrator.schedulers.base import JobInfo, JobState
from orchestrator.schedulers.slurm_states import job_state, parse_sacct, parse_squeue


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        ("PENDING", JobState.PENDING),
        ("CONFIGURING", JobState.PENDING),
        ("REQUEUE_HOLD", JobState.PENDING),
        ("RUNNING", JobState.RUNNING),
        ("COMPLETING", JobState.RUNNING),
        ("SUSPENDED", JobState.RUNNING),
        ("COMPLETED", JobState.COMPLETED),
        ("FAILED", JobState.FAILED),
        ("OUT_OF_MEMORY", JobState.OUT_OF_MEMORY),
        ("PREEMPTED", JobState.PREEMPTED),
        ("TIMEOUT", JobState.TIME_LIMIT),
        ("DEADLINE", JobState.TIME_LIMIT),
        ("NODE_FAIL", JobState.NODE_FAILURE),
        ("BOOT_FAIL", JobState.NODE_FAILURE),
        ("CANCELLED", JobState.CANCELLED),
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
    ],
)
def test_slurms_words_have_one_meaning_each(raw, state):
    assert job_state(raw) is state


@pytest.mark.parametrize("raw", ["", "  ", "REVOKED", "SOMETHING_NEW", "☃"])
def test_a_word_of_no_known_meaning_is_unknown(raw):
    assert job_state(raw) is JobState.UNKNOWN


def test_a_pending_job_says_what_it_waits_for():
    assert parse_squeue("12|PENDING|Resources\n13|PENDING|None\n") == {
        "12": JobInfo("12", JobState.PENDING, "Resources"),
        "13": JobInfo("13", JobState.PENDING, "PENDING"),
    }


def test_a_finished_job_in_squeue_keeps_its_reason():
    infos = parse_squeue("12|FAILED|NonZeroExitCode\n13|RUNNING|None\n")
    assert infos["12"] == JobInfo("12", JobState.FAILED, "FAILED (NonZeroExitCode)")
    assert infos["13"] == JobInfo("13", JobState.RUNNING, "RUNNING")


def test_a_reason_may_hold_the_separator():
    info = parse_squeue("12|PENDING|(ReqNodeNotAvail, a|b)\n")["12"]
    assert info.reason == "(ReqNodeNotAvail, a|b)"


def test_the_newest_start_of_a_requeued_job_counts():
    rows = "12|PREEMPTED|0:0\n13|FAILED|1:0\n12|NODE_FAIL|0:0\n12|RUNNING|0:0\n"
    assert parse_sacct(rows)["12"].state is JobState.RUNNING
    assert parse_sacct(rows)["13"] == JobInfo("13", JobState.FAILED, "FAILED (exit 1:0)")


def test_a_sites_banner_is_no_job():
    text = "Welcome to the cluster!\n\n||\n12|COMPLETED|0:0\n"
    assert parse_sacct(text) == {"12": JobInfo("12", JobState.COMPLETED, "COMPLETED")}
    assert parse_squeue("slurm_load_jobs error: Invalid job id specified") == {}
