from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.plan.plan import Plan, Target
from orchestrator.plan.planner import plan
from orchestrator.render.sbatch import array_sbatch, job_sbatch
from orchestrator.render.sbatch_header import clock, sbatch_line
from orchestrator.spec.job import JobSpec

RUNS = Path("/runs")


def made(spec: dict[str, Any], runs: Path = RUNS) -> tuple[JobSpec, Plan]:
    whole = JobSpec.model_validate(
        {
            "name": "x",
            "scheduler": "slurm",
            "entrypoint": {"command": ["true"]},
            "resources": {"gpus_per_node": 4, "nodes": 2},
        }
        | spec
    )
    target = Target("/opt/python", Path("/home/kim"))
    return whole, plan(whole, Path("job.yaml"), target, "x-000001", runs / "x-000001")


def script(spec: dict[str, Any], runs: Path = RUNS) -> str:
    return job_sbatch(*made(spec, runs)).decode()


def options(spec: dict[str, Any], runs: Path = RUNS) -> list[str]:
    return [
        line.removeprefix("#SBATCH --")
        for line in script(spec, runs).splitlines()
        if line.startswith("#SBATCH ")
    ]


def test_every_option_stands_on_one_line_before_the_first_command() -> None:
    lines = script({}).splitlines()
    header = [index for index, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [index for index, line in enumerate(lines) if line and not line.startswith("#")]
    assert lines[0] == "#!/bin/bash"
    assert header == list(range(1, len(header) + 1))
    assert max(header) < min(commands)


def test_the_job_bears_the_run_id_twice_and_starts_one_task_a_node() -> None:
    found = options({})
    assert found[:4] == [
        "job-name=x-000001",
        "comment=ptx:x-000001",
        "nodes=2",
        "ntasks-per-node=1",
    ]
    assert "output=/runs/x-000001/scheduler.log" in found
    assert "open-mode=append" in found


@pytest.mark.parametrize(
    ("slurm", "expected"),
    [
        ({}, "gres=gpu:4"),
        ({"gpu_type": "a100"}, "gres=gpu:a100:4"),
        ({"gpu_flag": "gpus-per-node"}, "gpus-per-node=4"),
        ({"gpu_flag": "gpus-per-node", "gpu_type": "h100"}, "gpus-per-node=h100:4"),
        ({"gpu_flag": "gpus-per-task"}, "gpus-per-task=4"),
        ({"gpu_flag": "none"}, None),
    ],
)
def test_gpus_are_asked_for_in_the_sites_dialect(
    slurm: dict[str, Any], expected: str | None
) -> None:
    found = [option for option in options({"slurm": slurm}) if "g" in option and "4" in option]
    assert found == ([expected] if expected else [])


def test_a_cpu_job_asks_for_no_gpus() -> None:
    assert not any("gpu" in option for option in options({"resources": {"gpus_per_node": 0}}))


@pytest.mark.parametrize(
    ("flag", "resources", "expected"),
    [
        ("mem", {}, "mem=65536M"),
        ("mem-per-cpu", {"cpus_per_task": 3}, "mem-per-cpu=21846M"),
        ("mem-per-gpu", {}, "mem-per-gpu=16384M"),
        ("none", {}, None),
    ],
)
def test_memory_is_asked_for_in_the_sites_dialect(
    flag: str, resources: dict[str, Any], expected: str | None
) -> None:
    asked = {"gpus_per_node": 4, "memory": "64GB"} | resources
    found = options({"resources": asked, "slurm": {"memory_flag": flag}})
    assert [option for option in found if option.startswith("mem")] == (
        [expected] if expected else []
    )


@pytest.mark.parametrize(("flag", "gpus"), [("mem-per-cpu", 4), ("mem-per-gpu", 0)])
def test_memory_shares_of_nothing_are_refused(flag: str, gpus: int) -> None:
    resources = {"gpus_per_node": gpus, "memory": "64GB"}
    with pytest.raises(UserError, match=flag):
        script({"resources": resources, "slurm": {"memory_flag": flag}})


def test_a_warning_signal_goes_only_with_a_time_limit() -> None:
    assert not any(option.startswith(("signal", "time")) for option in options({}))
    limited = options({"resources": {"gpus_per_node": 1, "time_limit": "90m"}})
    assert "time=0-01:30:00" in limited
    assert "signal=USR2@120" in limited
    short = options({"resources": {"gpus_per_node": 1, "time_limit": "60s"}})
    assert "signal=USR2@30" in short


def test_times_are_in_slurms_own_form() -> None:
    assert clock(59) == "0-00:00:59"
    assert clock(2 * 86400 + 3661) == "2-01:01:01"


def test_the_reasons_to_restart_say_whether_slurm_may_queue_the_job_again() -> None:
    found = options({})
    assert "requeue" in found
    assert "no-requeue" not in found
    asked = options({"restart": {"on": ["failed"], "max": 2}})
    assert "no-requeue" in asked
    assert "requeue" not in asked


def test_no_key_unless_asked_for() -> None:
    assert not any(option.startswith("wckey") for option in options({}))
    assert "wckey=k" in options({"slurm": {"wckey": "k"}})


def test_spare_nodes_are_asked_for_and_outlive_a_dead_one() -> None:
    assert "no-kill" not in options({})
    resources = {"gpus_per_node": 4, "nodes": 2, "spare_nodes": 1}
    found = options({"resources": resources})
    assert {"nodes=3", "no-kill"} <= set(found)
    assert "--nodes=2" in script({"resources": resources})


def test_the_persons_own_options_are_given_on() -> None:
    more = {"mail-type": "END", "requeue": True, "nice": 5, "switches": "1@10:00"}
    found = options({"slurm": {"options": more, "exclusive": True, "partition": "a,b"}})
    assert {"mail-type=END", "requeue", "nice=5", "switches=1@10:00"} <= set(found)
    assert {"exclusive", "partition=a,b"} <= set(found)
    assert found.count("requeue") == 1
    assert "no-requeue" not in found


def test_options_that_ptx_sets_are_refused() -> None:
    with pytest.raises(UserError, match=r"slurm\.options sets output"):
        script({"slurm": {"options": {"output": "/elsewhere"}}})


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("plain", "#SBATCH --constraint=plain"),
        ("a b", '#SBATCH --constraint="a b"'),
        ("a#b", '#SBATCH --constraint="a#b"'),
        ('a"b', '#SBATCH --constraint="a\\"b"'),
        ("a'b", '#SBATCH --constraint="a\'b"'),
        ("a\\b", '#SBATCH --constraint="a\\\\b"'),
        ("$(x)", '#SBATCH --constraint="$(x)"'),
    ],
)
def test_values_are_quoted_as_sbatch_reads_them(value: str, line: str) -> None:
    assert sbatch_line("constraint", value) == line


def test_a_newline_in_a_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"U\+000A"):
        sbatch_line("constraint", "a\ntouch canary")


def test_a_run_folder_with_percent_signs_is_doubled_and_one_with_a_backslash_refused() -> None:
    assert "output=/a%%j/x-000001/scheduler.log" in options({}, Path("/a%j"))
    with pytest.raises(UserError, match="backslash"):
        script({}, Path("/a\\b"))


def test_the_script_is_bash_and_starts_the_supervisor(tmp_path: Path) -> None:
    """Run with a python3 that only shows its arguments: what it is told is what would start."""
    runs = tmp_path / "it's $(touch canary) %j"
    runs.mkdir()
    (tmp_path / "python3").write_text('#!/bin/bash\nprintf "%s\\n" "$@" "$SRUN_CPUS_PER_TASK"\n')
    (tmp_path / "python3").chmod(0o755)
    job = tmp_path / "job.sbatch"
    job.write_text(script({}, runs))
    done = subprocess.run(
        ["bash", str(job)],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SLURM_JOB_ID": "12",
            "SLURM_CPUS_PER_TASK": "6",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.splitlines()
    bundle = runs / "x-000001" / "bundle"
    agent, plan_path = f"{bundle}/agent.pyz", f"{bundle}/plan.json"
    assert told[:7] == ["-I", "-S", agent, "job", plan_path, "--", "srun"]
    assert told[-5:] == ["ptx", "/opt/python", agent, plan_path, "6"]
    assert {"--nodes=2", "--ntasks=2", "--kill-on-bad-exit=1"} <= set(told)
    assert not list(tmp_path.rglob("canary"))


LATER = [4 * number for number in range(1, 10)]


@pytest.mark.parametrize(
    ("ends", "starts", "code", "pauses"),
    [
        (["exit 0"], 1, 0, []),
        (["exit 1"], 1, 1, []),
        (["kill -9 $$", "exit 0"], 2, 0, [1]),
        (["kill -SEGV $$", "kill -9 $$", "exit 1"], 3, 1, [1, 1]),
        (["kill -TERM $PPID; kill -9 $$", "exit 0"], 1, 137, []),
        (["kill -USR2 $PPID; exit 0"], 1, 0, []),
        (["exit 75", "exit 75", "exit 0"], 3, 0, [4, 8]),
        (["kill -TERM $PPID; exit 1"], 1, 1, []),
        (["kill -TERM $PPID; exit 75", "exit 0"], 2, 0, [4]),
        (["exit 75"] * 20, 10, 75, LATER),
        (["rm -r bundle; exit 2"], 1, 2, []),
        (
            ["rm bundle/plan.json; exit 75", "exit 2", "touch bundle/plan.json; exit 75", ":"],
            4,
            0,
            [4, 8, 12],
        ),
        (["rm -r bundle; exit 0"], 1, 0, []),
    ],
)
def test_a_supervisor_that_was_killed_alone_or_that_failed_is_started_anew(
    ends: list[str], starts: int, code: int, pauses: list[int], tmp_path: Path
) -> None:
    """Where SLURM ends the job it sends SIGTERM to the script too, and to its pause."""
    run = tmp_path / "x-000001"
    (run / "bundle").mkdir(parents=True)
    for name in ("agent.pyz", "plan.json"):
        (run / "bundle" / name).touch()
    lines = ["#!/bin/bash", "echo >> starts", "case $(wc -l < starts) in"]
    lines += [f"{number}) {end};;" for number, end in enumerate(ends, 1)]
    (run / "python3").write_text("\n".join([*lines, "esac", ""]))
    (run / "sleep").write_text("#!/bin/bash\necho $1 >> pauses\nexit 143\n")
    for name in ("python3", "sleep"):
        (run / name).chmod(0o755)
    (run / "job.sbatch").write_text(script({}, tmp_path))
    done = subprocess.run(
        ["bash", "job.sbatch"],
        env={"PATH": f"{run}:/usr/bin:/bin"},
        cwd=run,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert len((run / "starts").read_text().splitlines()) == starts
    said = (run / "pauses").read_text().split() if pauses else []
    assert [int(word) for word in said] == pauses
    assert done.stderr.count("it is started anew") == len(pauses)


def test_an_arrays_script_runs_the_script_of_each_element_wherever_they_lie(tmp_path: Path) -> None:
    runs = tmp_path / 'it\'s 50 %a "quoted" $HOME'
    spec, of_one = made({}, runs)
    (tmp_path / "array.sbatch").write_bytes(array_sbatch(spec, of_one, "x-000001", "0-1%1"))
    for index in range(2):
        bundle = runs / f"x.{index}-000001" / "bundle"
        bundle.mkdir(parents=True)
        (bundle / "job.sbatch").write_text(f"echo I am {index}\n")
    for index in range(2):
        argv = ["bash", str(tmp_path / "array.sbatch")]
        env = {"SLURM_ARRAY_TASK_ID": str(index), "PATH": "/usr/bin:/bin"}
        assert subprocess.run(argv, env=env, capture_output=True).stdout == b"I am %d\n" % index


def test_an_array_asks_for_what_each_element_would_and_names_each_ones_own_log() -> None:
    spec, of_one = made({"resources": {"nodes": 2, "time_limit": "1h", "gpus_per_node": 4}})
    lines = array_sbatch(spec, of_one, "x-000001", "0-7%2").decode().splitlines()
    array = [line for line in lines if line.startswith("#SBATCH")]
    single = [line for line in job_sbatch(spec, of_one).decode().splitlines() if "#SBATCH" in line]
    assert array[-1] == "#SBATCH --array=0-7%2"
    assert [line for line in array if line not in single][:-1] == [
        "#SBATCH --output=/runs/x.%a-000001/scheduler.log",
    ]
    assert [line for line in single if line not in array] == [
        "#SBATCH --output=/runs/x-000001/scheduler.log"
    ]
