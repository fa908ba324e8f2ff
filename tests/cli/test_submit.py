"""`ptx submit`, `ptx render`, `ptx validate` and `ptx schema`."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from pathlib import Path

import jsonschema
import pytest
from support.made_runs import MadeRun
from support.ptx import Ptx

from orchestrator.cli.main import main
from orchestrator.preparation import resolved_yaml
from orchestrator.runs.array import element_id
from orchestrator.runs.events import read_events
from orchestrator.runs.layout import RunLayout
from orchestrator.spec.loader import load

SECRET = "hunter2-is-not-a-good-password"  # noqa: S105 - looked for, never used
SPEC = """\
# the person's own words stay
name: tiny
entrypoint: {command: [sleep, "60"]}
resources: {gpus_per_node: 0, procs_per_node: 2}
"""


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    home = tmp_path / "home"
    home.mkdir()
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")}, cwd=home)


@pytest.fixture
def spec(ptx: Ptx) -> Path:
    path = ptx.cwd / "job.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    """ptx is found although it is typed in a folder of the test's own."""
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)


def printed_files(text: str) -> dict[str, str]:
    """path -> content of what a dry run printed."""
    parts = re.split(r"^# ==> (\S+)(.*)\n", text, flags=re.MULTILINE)[1:]
    return {parts[n]: parts[n + 2] for n in range(0, len(parts), 3)}


def test_a_dry_run_prints_everything_and_leaves_nothing(ptx: Ptx, spec: Path) -> None:
    done = ptx("submit", str(spec), "--dry-run")
    assert done.returncode == 0
    files = printed_files(done.stdout)
    assert {"launch.sh", "plan.json", "spec.yaml", "agent.pyz"} <= files.keys()
    assert json.loads(files["plan.json"])["world_size"] == 2
    assert not ptx.runs.exists()
    assert not (ptx.runs.parent / "state").exists()
    assert [path.name for path in ptx.cwd.iterdir()] == ["job.yaml"]


@pytest.mark.slow
def test_the_bytes_of_the_dry_run_are_the_bytes_that_run(ptx: Ptx, spec: Path) -> None:
    options = ("--run-id", "tiny-000000", "--set", "training.seed=7")
    told = json.loads(ptx.ok("submit", str(spec), *options, "--dry-run", "--json"))
    printed = printed_files(ptx.ok("submit", str(spec), *options, "--dry-run"))
    assert ptx.ok("submit", str(spec), *options) == "tiny-000000\n"
    layout = RunLayout(ptx.runs / "tiny-000000")
    try:
        written = {path.name: path.read_bytes() for path in layout.bundle.iterdir()}
        assert written.keys() == {file["path"] for file in told["files"]}
        for file in told["files"]:
            data = written[file["path"]]
            assert (len(data), file["text"] or "") == (
                file["bytes"],
                data.decode() if file["text"] is not None else "",
            )
            if file["text"] is not None:
                assert printed[file["path"]] == data.decode()
        assert layout.spec.read_text() == SPEC
        assert ptx("submit", str(spec), *options).returncode == 5
    finally:
        ptx.ok("cancel", "tiny-000000")
    assert ptx("wait", "tiny", "--timeout", "60").returncode == 1
    assert json.loads(ptx.ok("status", "tiny", "--json"))["state"] == "cancelled"


@pytest.mark.slow
def test_submit_prints_the_run_id_and_what_to_type_next(ptx: Ptx, spec: Path) -> None:
    spec.write_text(SPEC.replace('sleep, "60"', '"true"'))
    done = ptx("submit", str(spec), "--name", "other")
    run_id = done.stdout.strip()
    assert re.fullmatch(r"other-[0-9a-z]{6}", run_id)
    for command in (f"ptx status {run_id}", f"ptx logs {run_id} --follow", f"ptx cancel {run_id}"):
        assert command in done.stderr
    assert ptx.ok("wait", "@last", "--timeout", "90").startswith(f"{run_id} completed")
    layout = RunLayout(ptx.runs / run_id)
    events = [event.type for event in read_events(layout)]
    assert events.index("intent") < events.index("submitted") < events.index("node_ended")
    assert stat.S_IMODE(layout.root.stat().st_mode) == 0o700
    open_to_others = [path for path in layout.root.rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_a_scheduler_that_is_not_there_is_exit_4_and_no_folder(ptx: Ptx, spec: Path) -> None:
    ptx.env["SLURM_CONF"] = str(ptx.cwd / "no-such-slurm.conf")
    ptx.env["PATH"] = str(Path(os.__file__).parent)  # no SLURM command either
    options = ("--scheduler", "slurm", "--set", "resources.time_limit=1h")
    done = ptx("submit", str(spec), *options)
    assert done.returncode == 4, done.stderr
    assert "hint:" in done.stderr and "Traceback" not in done.stderr
    assert not ptx.runs.exists()
    error = json.loads(ptx("submit", str(spec), *options, "--json").stdout)["error"]
    assert error["code"] == "scheduler-unreachable"
    assert ptx("submit", str(spec), *options, "--dry-run").returncode == 0


def test_a_wrong_spec_makes_no_folder(ptx: Ptx, spec: Path) -> None:
    spec.write_text(SPEC + "nmae: x\nslurm: {partitoin: gpu}\n")
    done = ptx("submit", str(spec))
    assert done.returncode == 2
    assert "job.yaml:5:1: error[" in done.stderr and "job.yaml:6:9: error[" in done.stderr
    assert not ptx.runs.exists()
    error = json.loads(ptx("submit", str(spec), "--json").stdout)["error"]
    assert [(d["line"], d["column"]) for d in error["diagnostics"]] == [(5, 1), (6, 9)]


def test_a_secret_that_is_not_set_is_asked_for(ptx: Ptx, spec: Path) -> None:
    spec.write_text(SPEC + "secrets: [PTX_TEST_TOKEN_A, PTX_TEST_TOKEN_B]\n".replace("PTX_", "MY_"))
    done = ptx("submit", str(spec))
    assert done.returncode == 2
    assert "MY_TEST_TOKEN_A, MY_TEST_TOKEN_B" in done.stderr
    assert "export MY_TEST_TOKEN_A=" in done.stderr
    assert not ptx.runs.exists()


@pytest.mark.slow
def test_the_value_of_a_secret_is_in_one_0600_file_while_the_run_lives(
    ptx: Ptx, spec: Path
) -> None:
    spec.write_text(SPEC + "secrets: [MY_TOKEN]\n")
    ptx.env["MY_TOKEN"] = SECRET
    told = [ptx("submit", str(spec), "--dry-run"), ptx("submit", str(spec), "--dry-run", "--json")]
    told.append(ptx("submit", str(spec), "--json"))
    run_id = json.loads(told[-1].stdout)["run_id"]
    run = ptx.runs / run_id
    told += [ptx("status", run_id), ptx("status", run_id, "--json")]
    assert holders_of_the_secret(run) == ["secrets"]
    assert stat.S_IMODE((run / "secrets").stat().st_mode) == 0o600
    told.append(ptx("cancel", run_id))
    ptx("wait", run_id, "--timeout", "60")
    assert holders_of_the_secret(run) == []
    assert all(SECRET not in done.stdout + done.stderr for done in told)


def holders_of_the_secret(run: Path) -> list[str]:
    files = [path for path in run.rglob("*") if path.is_file()]
    return [path.name for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["a\nb", "$(touch canary)", "`touch canary`", "a;b", "-x", "../x"])
def test_a_hostile_name_is_refused_and_nothing_of_it_runs(
    ptx: Ptx,
    spec: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ptx.cwd)
    assert main(["submit", str(spec), "--name", name, "--runs", str(ptx.runs)]) == 2
    assert capsys.readouterr().out == ""
    assert not ptx.runs.exists()
    assert [path.name for path in ptx.cwd.iterdir()] == ["job.yaml"]


@pytest.mark.parametrize("run_id", ["../x-000000", "tiny", "tiny-00000", "tiny-000000/..", ""])
def test_a_run_id_that_is_none_is_refused(
    spec: Path, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["submit", str(spec), "--dry-run", "--run-id", run_id])
    assert code == (0 if run_id == "" else 2)
    capsys.readouterr()


def test_a_shipped_job_is_found_from_any_folder(ptx: Ptx) -> None:
    done = ptx("submit", "jobs/hello.yaml", "--dry-run", "--gpus", "0")
    assert done.returncode == 0
    assert "jobs/hello.yaml is not in this folder; taking the one that ships" in done.stderr
    own = ptx.cwd / "jobs"
    own.mkdir()
    (own / "hello.yaml").write_text(SPEC)
    done = ptx("submit", "jobs/hello.yaml", "--dry-run")
    assert "ships" not in done.stderr and "name: tiny" in done.stdout
    missing = ptx("submit", "jobs/nothing.yaml", "--dry-run")
    assert missing.returncode == 2 and "nothing.yaml" in missing.stderr


def test_named_options_win_over_set_and_both_over_the_spec(ptx: Ptx, spec: Path) -> None:
    args = ("--set", "launcher=deepspeed", "--launcher", "accelerate", "--set", "env.A=x")
    plan = json.loads(printed_files(ptx.ok("render", str(spec), *args))["plan.json"])
    assert plan["launcher"] == "accelerate"
    wrong = ptx("render", str(spec), "--gpus", "lots")
    assert wrong.returncode == 2 and "--gpus lots" in wrong.stderr


def test_the_resolved_spec_means_the_same_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    spec = tmp_path / "job.yaml"
    spec.write_text(
        "name: r\nentrypoint: {script: train.py, args: {lr: 1.0e-05, flag: true, t: '12:30:00'}}\n"
        "workdir: .\nenv: {A: 'no', B: '1e-4', C: 'ünï ${x}'}\nstrategy: fsdp\n"
    )
    loaded = load(spec)
    elsewhere = tmp_path / "bundle" / "spec.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(resolved_yaml(loaded))
    again = load(elsewhere)
    assert again.spec.entrypoint.script == str(tmp_path / "train.py")
    assert again.spec.workdir == str(tmp_path)
    kept = {"entrypoint", "workdir"}
    assert again.spec.model_dump(exclude=kept) == loaded.spec.model_dump(exclude=kept)
    assert again.spec.entrypoint.args == loaded.spec.entrypoint.args
    assert resolved_yaml(again) == elsewhere.read_bytes()


def test_render_writes_the_files_that_it_prints(ptx: Ptx, spec: Path) -> None:
    options = ("--run-id", "tiny-000000")
    printed = printed_files(ptx.ok("render", str(spec), *options))
    listed = ptx.ok("render", str(spec), *options, "-o", "out").split()
    out = ptx.cwd / "out"
    assert sorted(listed) == sorted(f"out/{path.name}" for path in out.iterdir())
    for name in ("launch.sh", "plan.json", "spec.yaml"):
        assert (out / name).read_text() == printed[name]
    assert ptx("render", str(spec), *options, "-o", "out").returncode == 5


def test_render_standalone_prints_one_sbatch_file(ptx: Ptx, spec: Path) -> None:
    options = ("--standalone", "--scheduler", "slurm")
    script = ptx.ok("render", str(spec), *options)
    assert script.startswith("#!/bin/bash\n") and "#SBATCH --job-name=tiny" in script
    told = json.loads(ptx.ok("render", str(spec), *options, "--json"))
    assert told["standalone"] == script
    ptx.ok("render", str(spec), *options, "-o", "out")
    assert (ptx.cwd / "out" / "tiny.sbatch").read_text() == script
    assert ptx("render", str(spec), "--standalone").returncode == 2


def test_validate_shows_the_errors_of_all_specs(ptx: Ptx, spec: Path) -> None:
    bad = ptx.cwd / "bad.yaml"
    bad.write_text("name: [\n")
    worse = ptx.cwd / "worse.yaml"
    worse.write_text("name: a b\nfoo: 1\n")
    done = ptx("validate", str(spec), str(bad), str(worse), "missing.yaml")
    assert done.returncode == 2
    assert done.stdout == f"{spec}: valid\n"
    for words in ("bad.yaml:", "worse.yaml:1:7", "worse.yaml:2:1", "missing.yaml"):
        assert words in done.stderr, words
    assert f"4 specs: 1 valid, 3 with errors: {bad}, {worse}, missing.yaml" in done.stderr
    told = json.loads(ptx("validate", str(spec), str(worse), "--json").stdout)
    assert [row["valid"] for row in told["specs"]] == [True, False]
    both = ptx("validate", str(spec), str(spec))
    assert (both.returncode, both.stderr.splitlines()[0]) == (0, "2 specs, all valid")
    one = ptx("validate", str(spec))
    assert (one.returncode, one.stderr) == (0, f"next: ptx submit {spec} --dry-run\n")
    assert ptx("validate", str(spec), "--set", "resources.nodes=-1").returncode == 2


def test_the_schema_accepts_the_shipped_specs_and_refuses_a_typo(checkout: Path, ptx: Ptx) -> None:
    import yaml

    schema = json.loads(ptx.ok("schema"))
    assert schema == json.loads(ptx.ok("schema", "--json"))["schema"]
    validator = jsonschema.Draft202012Validator(schema)
    shipped = sorted((checkout / "jobs").glob("*.yaml"))
    assert len(shipped) >= 5
    for path in shipped:
        assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == [], path
    assert list(validator.iter_errors({"name": "a", "entrypoint": {}, "nmae": 1}))


@pytest.mark.parametrize(("share", "umask"), [("private", "0077"), ("group", "0007")])
def test_sbatch_hands_on_no_secret_and_no_umask_of_the_person(
    ptx: Ptx, spec: Path, share: str, umask: str
) -> None:
    """SLURM keeps a job's environment on its own disks, and gives its output file the umask."""
    spec.write_text(SPEC + f"secrets: [MY_TOKEN]\nshare: {share}\n")
    tools, told = ptx.cwd / "bin", ptx.cwd / "told.txt"
    tools.mkdir()
    scripts = {
        "scontrol": "echo 'Slurmctld(primary) at h is UP'",
        "srun": "",
        "sbatch": f"(env; umask) > {told}; echo 77",
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{script}\n")
        (tools / name).chmod(0o755)
    ptx.env |= {"PATH": f"{tools}:/usr/bin:/bin", "MY_TOKEN": SECRET, "MY_OTHER": "kept"}
    ptx.ok("submit", str(spec), "--scheduler", "slurm")
    lines = told.read_text().splitlines()
    assert "MY_OTHER=kept" in lines and SECRET not in told.read_text()
    assert lines[-1] == umask


def test_a_submission_whose_client_was_killed_is_settled_by_the_next_command(ptx: Ptx) -> None:
    run = MadeRun(ptx.runs, "r-aaaaaa")
    run.event(0, "intent", scheduler="local", host=os.uname().nodename, boot_id="x", pid=1, start=1)
    state = json.loads(ptx.ok("status", "r", "--json"))
    assert state["state"] == "launch-error"
    assert "died before the scheduler had the job" in state["reason"]


def test_a_client_killed_inside_sbatch_leaves_no_lost_job(ptx: Ptx, spec: Path) -> None:
    """The stand-in sbatch takes the job, then kills -9 the ptx that called it."""
    tools, jobs = ptx.cwd / "bin", ptx.cwd / "jobs.txt"
    tools.mkdir()
    scripts = {
        "scontrol": "echo 'Slurmctld(primary) at h is UP'",
        "srun": "",
        "sbatch": f"""\
name=$(sed -n 's/^#SBATCH --job-name=//p' "${{@: -1}}")
echo "77|RUNNING|$name" > {jobs}
kill -9 $PPID""",
        "squeue": f"""\
case "$*" in
  *--name*) cat {jobs};;
  *) echo '77|RUNNING|None';;
esac""",
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{script}\n")
        (tools / name).chmod(0o755)
    ptx.env["PATH"] = f"{tools}:/usr/bin:/bin"
    killed = ptx("submit", str(spec), "--scheduler", "slurm", "--run-id", "tiny-000000")
    assert killed.returncode == -9
    layout = RunLayout(ptx.runs / "tiny-000000")
    assert [event.type for event in read_events(layout)] == ["intent"]
    state = json.loads(ptx.ok("status", "tiny", "--json"))
    assert state["job_id"] == "77"
    assert [event.type for event in read_events(layout)] == ["intent", "submitted"]


def test_a_shipped_specs_name_may_be_too_long_for_a_disk(ptx: Ptx) -> None:
    done = ptx("validate", f"jobs/{'a' * 300}.yaml")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_the_rows_of_deleted_runs_do_no_harm(ptx: Ptx) -> None:
    run = MadeRun(ptx.runs, "r-aaaaaa").completed()
    shutil.rmtree(run.layout.root)
    assert ptx("status", "r").returncode == 3
    assert ptx.ok("status") == ""


def test_a_failed_submission_is_kept_with_its_reason(ptx: Ptx, spec: Path) -> None:
    """A stand-in sbatch that refuses, under an scontrol that says all is well."""
    tools = ptx.cwd / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text("#!/bin/sh\necho 'Slurmctld(primary) at h is UP'\n")
    (tools / "srun").write_text("#!/bin/sh\n")
    (tools / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition specified: nope' >&2\nexit 1\n"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    ptx.env["PATH"] = f"{tools}:/usr/bin:/bin"
    done = ptx("submit", str(spec), "--scheduler", "slurm", "--set", "slurm.partition=nope")
    assert done.returncode == 2, done.stderr
    assert "partition" in done.stderr and "Traceback" not in done.stderr
    (row,) = json.loads(ptx.ok("status", "--json"))["runs"]
    assert row["state"] == "launch-error" and "partition" in row["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--array", "0"), "--array 0 is no size of an array"),
        (("--array", "0-7"), "--array 0-7 is no size of an array"),
        (("--array", "1001"), "1000 at most"),
        (("--array", "8%0"), "no size of an array"),
        (("--array", "8"), "the scheduler is local"),
        (("--array", "8", "--scheduler", "slurm", "--follow"), "do not go together"),
        (("--array", "8", "--scheduler", "slurm", "--name", "n" * 63), "too long for an array"),
        (("--array", "8", "--scheduler", "slurm", "--set", "training.seed={index}x"), "=0x"),
        (
            ("--array", "3", "--scheduler", "slurm", "--set", "resources.time_limit=1{index}m"),
            "would ask for `#SBATCH --time=0-00:11:00`",
        ),
        (
            ("--array", "3", "--scheduler", "slurm", "--set", "name=x{index}"),
            "x1 is another than x0",
        ),
        (("--array", "3", "--run-id", "abc-123456"), "--array and --run-id"),
    ],
)
def test_what_is_no_array_is_refused_and_leaves_nothing(
    ptx: Ptx, spec: Path, options: tuple[str, ...], said: str
) -> None:
    refused = ptx("submit", str(spec), *options)
    assert refused.returncode == 2
    assert said in refused.stderr and "Traceback" not in refused.stderr
    assert not ptx.runs.exists()


def test_the_dry_run_of_an_array_shows_each_run_with_its_own_number(ptx: Ptx, spec: Path) -> None:
    argv = ("submit", str(spec), "--scheduler", "slurm", "--array", "3%2", "--dry-run", "--json")
    told = json.loads(ptx.ok(*argv, "--set", "training.seed={index}"))
    assert len(told["runs"]) == 3
    for index, run in enumerate(told["runs"]):
        assert run["run_id"] == element_id(told["array"], index)
        files = {file["path"]: file["text"] for file in run["files"]}
        assert json.loads(files["plan.json"])["training"]["seed"] == index
        assert ("array.sbatch" in files) == (index == 0)
    assert not ptx.runs.exists()


def test_an_arrays_name_means_all_its_runs_to_cancel_and_none_to_status(ptx: Ptx) -> None:
    for index in (10, 9):
        MadeRun(ptx.runs, f"sweep.{index}-aaaaaa").submitted().event(2, "cancel", user="ann").event(
            3, "supervisor_ended", rc=-15
        )
    said = ptx.ok("cancel", "sweep-aaaaaa").splitlines()
    assert said == [f"sweep.{index}-aaaaaa was cancelled already" for index in (10, 9)]
    refused = ptx("status", "sweep-aaaaaa")
    assert refused.returncode == 5
    assert "an array of 2 runs" in refused.stderr and "sweep.9-aaaaaa" in refused.stderr
