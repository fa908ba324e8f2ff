import pytest

from orchestrator.schedulers.slurm_command import is_unreachable, sentence
from orchestrator.schedulers.slurm_refusal import refusal

PREFIX = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("Invalid partition name specified", "slurm.partition"),
        ("User's group not permitted to use this partition", "slurm.partition"),
        ("Invalid account or account/partition combination specified", "slurm.account"),
        ("Invalid qos specification", "slurm.qos"),
        ("Job violates accounting/QOS policy (job submit limit, user's size)", "slurm.qos"),
        ("Invalid generic resource (gres) specification", "slurm.gpu_flag"),
        ("Memory required by task is not available", "slurm.memory_flag"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "time_limit"),
        ("Invalid feature specification", "slurm.constraint"),
        ("Invalid node name specified", "slurm.nodelist"),
        ("Requested reservation is invalid", "slurm.reservation"),
        ("Invalid wckey specification", "slurm.wckey"),
        ("Node count specification invalid", "resources.nodes"),
        ("CPU count per node can not be satisfied", "resources.cpus_per_task"),
        ("Requested node configuration is not available", "resources"),
        ("Job dependency problem", "slurm.options"),
    ],
)
def test_a_refusal_names_the_key_to_change(said, key):
    error = refusal(PREFIX + said)
    assert error.message == f"SLURM refused the job: {said}"
    assert key in error.hint
    assert error.exit_code == 2


def test_a_sites_own_sentence_comes_through_whole():
    error = refusal("sbatch: error: lua: Bring cake on Fridays.\n" + PREFIX + "Unspecified error")
    assert error.message == "SLURM refused the job: lua: Bring cake on Fridays.; Unspecified error"
    assert "--dry-run" in error.hint


def test_silence_is_a_sentence_too():
    assert refusal("").message == "SLURM refused the job: sbatch gave no reason"


@pytest.mark.parametrize(
    "said",
    [
        PREFIX + "Unable to contact slurm controller (connect failure)",
        PREFIX + "Socket timed out on send/recv operation",
        PREFIX + "Protocol authentication error",
        "sacct: error: Problem talking to the database: Connection refused",
        "squeue: fatal: Unable to process configuration file",
        'scontrol: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"',
    ],
)
def test_a_slurm_that_is_away_is_not_a_refusal(said):
    assert is_unreachable(said)


@pytest.mark.parametrize(
    "said", ["Invalid partition name specified", "Access/permission denied", "lua: no GPUs asked"]
)
def test_a_refusal_is_not_a_slurm_that_is_away(said):
    assert not is_unreachable(PREFIX + said)


def test_commands_prefixes_and_repetitions_are_left_out():
    assert sentence("sbatch: error: one\nsbatch: error: one\nsbatch: two\n") == "one; two"
