"""What of the SLURM scheduler needs no SLURM."""

import subprocess
import sys

import pytest

from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.runs.events import ClientEvents
from orchestrator.runs.layout import RunLayout
from orchestrator.schedulers import registry
from orchestrator.schedulers.base import JobState
from orchestrator.schedulers.slurm import Slurm


@pytest.fixture
def no_commands(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def stub(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_registry_knows_the_built_in_schedulers():
    assert registry.names()[:2] == ["local", "slurm"]
    assert registry.get("slurm").name == "slurm"
    assert registry.get("local").name == "local"


def test_an_unknown_scheduler_gets_a_suggestion():
    with pytest.raises(UserError) as caught:
        registry.get("slrum")
    assert "did you mean 'slurm'" in caught.value.hint


def test_a_scheduler_of_another_package_is_found_by_its_entry_point(tmp_path, monkeypatch):
    info = tmp_path / "ptx_cloud-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ptx-cloud\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[ptx.schedulers]\ncloud = ptx_cloud_x:Cloud\nbroken = ptx_cloud_x:Absent\n"
        "slurm = ptx_cloud_x:Cloud\n"
    )
    (tmp_path / "ptx_cloud_x.py").write_text("class Cloud:\n    name = 'cloud'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.get("cloud").name == "cloud"
    assert registry.get("slurm").name == "slurm"
    assert registry.names().count("slurm") == 1
    with pytest.raises(UserError, match=r"'broken'.*cannot be loaded"):
        registry.get("broken")


def test_the_dry_run_names_the_bundles_own_script(tmp_path):
    argv = Slurm().submit_argv(RunLayout(tmp_path / "run"))
    assert argv == ("sbatch", "--parsable", str(tmp_path / "run" / "bundle" / "job.sbatch"))


def test_no_slurm_here_is_said_with_the_way_out(no_commands):
    with pytest.raises(SchedulerUnreachable) as caught:
        Slurm().check()
    assert caught.value.exit_code == 4
    assert "scontrol" in caught.value.message
    assert "--scheduler local" in caught.value.hint


def test_submission_without_srun_is_unreachable_and_not_a_traceback(no_commands, tmp_path):
    with pytest.raises(SchedulerUnreachable, match="srun"):
        Slurm().submit(None, RunLayout(tmp_path))


def test_states_are_unknown_where_slurm_is_absent(no_commands, tmp_path):
    (info,) = Slurm().query({"12": RunLayout(tmp_path)})
    assert info.state is JobState.UNKNOWN
    assert "not on this machine" in info.reason


def test_a_thousand_finished_jobs_cost_few_questions(tmp_path, monkeypatch):
    """squeue, asked once, has forgotten all; sacct answers in chunks of 500."""
    log = tmp_path / "asked"
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", f"echo squeue >> {log}; echo 'Invalid job id specified' >&2; exit 1")
    stub(
        tmp_path,
        "sacct",
        f"echo sacct >> {log}\n"
        'for a in "$@"; do case $a in --jobs=*) jobs=${a#--jobs=};; esac; done\n'
        'IFS=,; for j in $jobs; do echo "$j|COMPLETED|0:0"; done',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ids = [str(number) for number in range(1, 1201)]
    infos = Slurm().query(dict.fromkeys(ids, RunLayout(tmp_path)))
    assert [info.job_id for info in infos] == ids
    assert {info.state for info in infos} == {JobState.COMPLETED}
    assert log.read_text().split() == ["squeue"] + ["sacct"] * 3


def test_an_accepted_job_is_found_again_when_the_answer_was_lost(tmp_path, monkeypatch):
    run = tmp_path / "job-1"
    (run / "bundle").mkdir(parents=True)
    (run / "bundle" / "job.sbatch").write_text("#!/bin/sh\n")
    stub(tmp_path, "srun", "exit 0")
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "sbatch", "echo 'Socket timed out on send/recv operation' >&2; exit 1")
    stub(
        tmp_path,
        "squeue",
        "echo '41|COMPLETED|job-1'; echo '42|RUNNING|job-1'; echo '43|RUNNING|x'",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert Slurm().submit(None, RunLayout(run)) == "42"


def test_an_earlier_job_of_the_run_is_not_taken_for_the_one_without_answer(tmp_path, monkeypatch):
    run = RunLayout(tmp_path / "job-1")
    for folder in (run.bundle, run.events):
        folder.mkdir(parents=True)
    (run.bundle / "job.sbatch").write_text("#!/bin/sh\n")
    ClientEvents(run).append("submitted", job_id="41")
    stub(tmp_path, "srun", "exit 0")
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "sbatch", "echo 'Socket timed out on send/recv operation' >&2; exit 1")
    stub(tmp_path, "squeue", "echo '41|FAILED|job-1'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SchedulerUnreachable, match="Socket timed out"):
        Slurm().submit(None, run)


@pytest.fixture
def array(tmp_path):
    """One of its elements, which has not begun."""
    run = RunLayout(tmp_path / "sweep.3-aaaaaa")
    run.root.mkdir()
    return run


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ("7_3|COMPLETED|0:0", "completed"),
        ("7_3|REQUEUED|0:0\n7_3|FAILED|1:0", "failed"),
        ("7_0|COMPLETED|0:0\n7_[1-2,3-9%2]|CANCELLED|0:0", "cancelled"),
        ("7_0|COMPLETED|0:0\n7_[1-9%2]|PENDING|0:0", "cancelled"),  # it has left them alone
        ("7_0|COMPLETED|0:0\n7_[1-2,4-9%2]|PENDING|0:0", "cancelled"),
        ("7_0|COMPLETED|0:0\n7_[1-9:2%2]|PENDING|0:0", "cancelled"),
        ("7|CANCELLED|0:0", "cancelled"),  # all of them, before any could start
        ("70_3|COMPLETED|0:0", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_element_that_the_queue_has_forgotten_is_what_accounting_says_of_it_or_of_its_array(
    tmp_path, monkeypatch, rows, state, array
):
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", "exit 0")
    named = "".join(f"{row}|sweep-aaaaaa\n" for row in rows.split())
    stub(tmp_path, "sacct", f"cat <<'END'\n{named}7_3|COMPLETED|0:0|another-bbbbbb\nEND")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (info,) = Slurm().query({"7_3": array})
    assert (info.job_id, info.state) == ("7_3", state)


@pytest.mark.parametrize(
    ("scontrol", "squeue"),
    [
        ("echo 'Slurmctld(primary) at head is DOWN'", "exit 0"),
        (
            "echo 'Slurmctld(primary) at head is UP'",
            "echo 'slurm_load_jobs error: Incompatible versions of client and server' >&2; exit 1",
        ),
    ],
)
def test_elements_that_wait_are_waiting_where_squeue_has_not_answered(
    tmp_path, monkeypatch, array, scontrol, squeue
):
    stub(tmp_path, "scontrol", scontrol)
    stub(tmp_path, "squeue", squeue)
    name = "sweep-aaaaaa"
    stub(
        tmp_path,
        "sacct",
        f"echo '7_0|RUNNING|0:0|{name}'; echo '7_[1-9%2]|PENDING|0:0|{name}'",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (info,) = Slurm().query({"7_3": array})
    assert (info.job_id, info.state) == ("7_3", JobState.PENDING)


def test_an_element_that_has_begun_was_not_cancelled_while_it_waited(tmp_path, monkeypatch, array):
    array.attempt(0).mkdir(parents=True)
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", "exit 0")
    stub(tmp_path, "sacct", "echo '7_0|COMPLETED|0:0|sweep-aaaaaa'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (info,) = Slurm().query({"7_3": array})
    assert info.state is JobState.UNKNOWN


def test_a_job_and_an_array_of_one_number_are_two(tmp_path, monkeypatch, array):
    """An array of another cluster, where this person has the same home."""
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", "exit 0")
    stub(
        tmp_path,
        "sacct",
        'case "$*" in *JobName*) echo "7|COMPLETED|0:0|plain-bbbbbb";; '
        '*--name=plain-bbbbbb*) echo "7|COMPLETED|0:0";; esac',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    plain = RunLayout(tmp_path / "plain-bbbbbb")
    states = {info.job_id: info.state for info in Slurm().query({"7_3": array, "7": plain})}
    assert states == {"7_3": JobState.UNKNOWN, "7": JobState.COMPLETED}


def test_an_element_that_slurm_does_not_single_out_is_not_cancelled_with_the_others(
    tmp_path, monkeypatch, array
):
    log = tmp_path / "cancelled"
    stub(
        tmp_path,
        "scontrol",
        '[ "$1" = ping ] && echo "Slurmctld(primary) at head is UP" && exit\n'
        "echo 'Job can not be split' >&2; exit 1",
    )
    stub(tmp_path, "squeue", "echo 7_3")
    stub(tmp_path, "scancel", f"touch {log}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="Job can not be split"):
        Slurm().cancel(array, "7_3")
    assert not log.exists()


def test_a_squeue_that_fails_has_not_said_that_an_element_does_not_wait(
    tmp_path, monkeypatch, array
):
    """Without a hold before it scancel ends all elements that wait."""
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", "echo 'Unspecified error' >&2; exit 1")
    stub(tmp_path, "scancel", f"touch {tmp_path}/cancelled")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SchedulerUnreachable, match="Unspecified error"):
        Slurm().cancel(array, "7_3")
    assert not (tmp_path / "cancelled").exists()


@pytest.mark.parametrize(
    ("row", "living"),
    [
        ("12|PENDING|r-aaaaaa", "12"),
        ("12|RUNNING|r-aaaaaa", None),
        ("13|RUNNING|r-aaaaaa", "13"),
        ("13|COMPLETING|r-aaaaaa", None),
        ("13|RUNNING|r-bbbbbb", None),
        ("", None),
    ],
)
def test_a_job_that_would_go_on_beside_another_is_found_whatever_the_run_folder_says(
    tmp_path, monkeypatch, row, living
):
    """Job 12 has ended by all that its ranks say."""
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", f"echo '{row}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert Slurm().living("r-aaaaaa", "12") == living


@pytest.mark.parametrize(
    ("rows", "living"),
    [
        ("7_13|PENDING|s-aaaaaa\n7_3|PENDING|s-aaaaaa", "7_3"),
        ("7_3|RUNNING|s-aaaaaa", None),
        ("7_13|PENDING|s-aaaaaa", None),
        ("7_3|PENDING|s-bbbbbb", None),
        ("9|RUNNING|s.3-aaaaaa", "9"),
    ],
)
def test_an_elements_own_job_goes_by_its_arrays_name(tmp_path, monkeypatch, rows, living):
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    shared = "7_[3,13]|PENDING|s-aaaaaa"
    asked = f"case \"$*\" in *--name=s-aaaaaa,s.3-aaaaaa*) printf '{rows}';; esac"
    stub(tmp_path, "squeue", f"case \" $* \" in *' -r '*) {asked};; *) echo '{shared}';; esac")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert Slurm().living("s.3-aaaaaa", "7_3") == living


def test_a_thousand_elements_of_a_dead_clients_array_are_looked_for_at_once(tmp_path, monkeypatch):
    log = tmp_path / "asked"
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", f"echo squeue >> {log}; echo '7_0|RUNNING|sweep-aaaaaa'")
    stub(tmp_path, "sacct", f"echo sacct >> {log}; echo '7_[1-999%2]|CANCELLED|sweep-aaaaaa'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    slurm = Slurm()
    found = [slurm.find(f"sweep.{index}-aaaaaa", "sweep-aaaaaa") for index in range(1001)]
    assert found == [f"7_{index}" for index in range(1000)] + [None]
    assert log.read_text().split() == ["squeue", "sacct"]


def test_a_squeue_that_fails_has_not_said_that_there_is_no_job(tmp_path, monkeypatch):
    stub(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    stub(tmp_path, "squeue", "echo 'slurm_load_jobs error: Incompatible versions' >&2; exit 1")
    stub(tmp_path, "sacct", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SchedulerUnreachable, match="Incompatible versions"):
        Slurm().find("job-1")


@pytest.mark.parametrize(
    "answer", ["12", "12;cluster", "Welcome to the cluster\n12", "Submitted batch job 12"]
)
def test_the_job_id_is_read_below_whatever_a_site_says(answer):
    from orchestrator.schedulers.slurm_executor import ScriptExecutor

    assert ScriptExecutor._get_job_id_from_submission_command(answer) == "12"


def test_planning_and_asking_import_neither_submitit_nor_pydantic():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from orchestrator.runs.layout import RunLayout\n"
        "from orchestrator.schedulers.registry import get\n"
        "s = get('slurm'); s.target(None); s.submit_argv(RunLayout(Path('/x')))\n"
        "assert not {'submitit', 'pydantic'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
