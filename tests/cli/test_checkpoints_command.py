"""`ptx checkpoints`: what is there, is it whole, what may go, and out of ptx with it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from support.made_checkpoints import made_checkpoint, whole_tensors
from support.made_runs import MadeRun
from support.ptx import Ptx

from orchestrator.checkpoints.manifest import read_manifest


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})


@pytest.fixture
def run(ptx: Ptx) -> Path:
    """Two checkpoints of its first attempt, one of the second, and one that was never finished."""
    folder = MadeRun(ptx.runs, "demo-aaaaaa").completed().layout.root
    now = time.time()
    made_checkpoint(folder, 100, created=now - 7300)
    made_checkpoint(folder, 200, created=now - 3700)
    fsdp = {"name": "fsdp", "tensor_parallel": 2, "pipeline_parallel": 1}
    losses = {"loss": 1.25, "eval_loss": 2.0}
    made_checkpoint(folder, 250, 1, created=now - 4000, strategy=fsdp, metrics=losses)
    made_checkpoint(folder, 300, 1, whole=False)
    return folder


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def shard(run: Path, name: str, rank: int = 0) -> Path:
    return run / "checkpoints" / name / f"rank-{rank:05d}.safetensors"


def test_the_list_fits_a_terminal_and_says_where_a_start_continues(ptx: Ptx, run: Path) -> None:
    done = ptx("checkpoints", "list", "demo")
    lines = done.stdout.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "STEP ATTEMPT AGE SIZE RANKS STRATEGY METRICS STATE",
        "300 1 - - - - - incomplete",
        "250 1 1h06m 1.5 KiB 2 fsdp tp2 eval_loss 2 next start",
        "200 0 1h01m 1.5 KiB 2 zero3 loss 2.8 whole",
        "100 0 2h01m 1.5 KiB 2 zero3 loss 2.9 whole",
    ]
    assert max(len(line) for line in lines) <= 80
    assert done.stderr == "next: ptx checkpoints verify demo-aaaaaa\n"


def test_a_metric_that_is_no_number_is_null_in_json(ptx: Ptx, run: Path) -> None:
    made_checkpoint(run, 400, metrics={"loss": 2.0, "eval_loss": math.inf, "lr": math.nan})
    newest = json.loads(ptx.ok("checkpoints", "list", "demo", "--json"))["checkpoints"][0]
    assert newest["metrics"] == {"loss": 2.0, "eval_loss": None, "lr": None}


def test_a_run_without_checkpoints_is_no_error(ptx: Ptx) -> None:
    MadeRun(ptx.runs, "none-aaaaaa").completed()
    done = ptx("checkpoints", "list", "none")
    assert (done.returncode, done.stdout) == (0, "")
    assert "none-aaaaaa has no checkpoints" in done.stderr
    assert json.loads(ptx.ok("checkpoints", "list", "none", "--json"))["checkpoints"] == []
    assert ptx("checkpoints", "verify", "none").returncode == 0
    assert ptx("checkpoints", "convert", "none", "-o", "x").returncode == 3


def test_verify_reads_every_byte_and_names_each_damaged_file(ptx: Ptx, run: Path) -> None:
    assert ptx.ok("checkpoints", "verify", "demo").splitlines() == [
        "step 250 of attempt 1: whole, 2 files, 1.5 KiB",
        "step 200 of attempt 0: whole, 2 files, 1.5 KiB",
        "step 100 of attempt 0: whole, 2 files, 1.5 KiB",
    ]
    damage(shard(run, "step-00000250.a001", 1))
    shard(run, "step-00000200.a000").unlink()
    done = ptx("checkpoints", "verify", "demo")
    assert done.returncode == 1
    flipped, missing = shard(run, "step-00000250.a001", 1), shard(run, "step-00000200.a000")
    assert f"error: {flipped} is not what was written: its hash differs.\n" in done.stderr
    assert f"error: {missing} is missing.\n" in done.stderr
    assert "step 100 of attempt 0: whole" in done.stdout
    assert "takes the newest that is whole" in done.stderr
    assert ptx("checkpoints", "verify", "demo", "--step", "100").returncode == 0
    told = ptx("checkpoints", "verify", "demo", "--step", "250", "--json")
    assert told.returncode == 1
    [row] = json.loads(told.stdout)["checkpoints"]
    assert (row["step"], row["whole"], len(row["problems"])) == (250, False, 1)
    other = ptx("checkpoints", "verify", "demo", "--step", "300")
    assert other.returncode == 3
    assert "There are steps 100, 250." in other.stderr


@pytest.mark.parametrize("which", [".", "step-00000250.a001", "manifest.json", "rank-00001"])
def test_what_a_start_refuses_since_others_could_have_written_it_every_command_refuses(
    ptx: Ptx, run: Path, tmp_path: Path, which: str
) -> None:
    newest = run / "checkpoints" / "step-00000250.a001"
    path = {
        ".": newest.parent,
        "manifest.json": newest / which,
        "rank-00001": shard(run, newest.name, 1),
    }.get(which, newest)
    path.chmod(path.stat().st_mode | 0o020)
    sentence = f"{path} can be written by its group, which the spec does not share it with"
    way_out = "hint: if nobody has: chmod -R go-w the run's checkpoints, and chown them to you\n"
    for verb in ("convert", "export"):
        done = ptx("checkpoints", verb, "demo", "--output", str(tmp_path / "out"))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"error: {sentence}, so what it holds is not loaded\n{way_out}" == done.stderr
        assert not (tmp_path / "out").exists()

    listed = ptx("checkpoints", "list", "demo")
    states = [line.split()[-1] for line in listed.stdout.splitlines()[1:]]
    others = ["untrusted"] * 2 if which == "." else ["whole"] * 2
    assert states == ["incomplete", "untrusted", *others]
    assert listed.stderr.count(sentence) == 1 and way_out in listed.stderr
    rows = json.loads(ptx.ok("checkpoints", "list", "demo", "--json"))["checkpoints"]
    assert not any(row["next_start"] for row in rows)
    assert rows[1]["whole"] and rows[1]["problem"].startswith(sentence)

    read = ptx("checkpoints", "verify", "demo", "--step", "250")
    assert (read.returncode, read.stdout.split(",")[0]) == (1, "step 250 of attempt 1: untrusted")
    assert f"error: {sentence}" in read.stderr and way_out in read.stderr
    assert ptx("checkpoints", "verify", "demo", "--step", "100").returncode == (which == ".")


def test_what_a_run_shares_with_its_group_is_trusted(ptx: Ptx, tmp_path: Path) -> None:
    made = MadeRun(ptx.runs, "team-aaaaaa").completed()
    made_checkpoint(made.layout.root, 10)
    plan = made.layout.bundle / "plan.json"
    plan.parent.mkdir(exist_ok=True)
    plan.write_text(json.dumps({"group_shared": True}))
    for path in (made.layout.checkpoints, *made.layout.checkpoints.rglob("*")):
        path.chmod(path.stat().st_mode | 0o060)
    assert ptx("checkpoints", "verify", "team").returncode == 0
    assert "next start" in ptx.ok("checkpoints", "list", "team")
    assert ptx("checkpoints", "convert", "team", "-o", str(tmp_path / "out")).returncode == 0
    made.layout.checkpoints.chmod(0o777)
    refused = ptx("checkpoints", "convert", "team", "-o", str(tmp_path / "no"))
    assert refused.returncode == 1 and "can be written by everybody" in refused.stderr


def test_prune_says_what_went_and_asks_nothing(ptx: Ptx, run: Path) -> None:
    dry = ptx("checkpoints", "prune", "demo", "--keep-last", "1", "--dry-run")
    assert dry.stdout.splitlines() == [
        "step 100 of attempt 0: would go, 2.1 KiB",
        "step 200 of attempt 0: would go, 2.1 KiB",
    ]
    assert len(list((run / "checkpoints").iterdir())) == 4
    every = ["--keep-last", "1", "--keep-every", "200"]
    done = ptx("checkpoints", "prune", "demo", *every)
    assert done.stdout == "step 100 of attempt 0: deleted, 2.1 KiB\n"
    assert "2.1 KiB were freed" in done.stderr
    told = json.loads(ptx.ok("checkpoints", "prune", "demo", "--keep-last", "1", "--json"))
    assert ([one["step"] for one in told["pruned"]], told["dry_run"]) == ([200], False)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["step-00000250.a001", "step-00000300.a001"]
    again = ptx("checkpoints", "prune", "demo", "--keep-last", "1")
    assert (again.returncode, again.stdout) == (0, "")
    assert ptx("checkpoints", "prune", "demo", "--keep-last", "0").returncode == 2
    assert ptx("checkpoints", "prune", "demo").returncode == 2


def test_convert_writes_whole_tensors(ptx: Ptx, run: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = ptx("checkpoints", "convert", "demo", "--step", "200", "--output", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: step 200, 5 tensors, 1 file, 808 B\n"
    assert done.stderr == ""  # no command takes such a folder
    found = load_file(tmp_path / "out" / "tensors.safetensors")
    assert all((found[name] == value).all() for name, value in whole_tensors(200).items())
    assert ptx("checkpoints", "convert", "demo", "-o", out).returncode == 5
    damage(shard(run, "step-00000250.a001"))
    damaged = ptx("checkpoints", "convert", "demo", "-o", str(tmp_path / "no"), "--json")
    assert damaged.returncode == 1
    error = json.loads(damaged.stdout)["error"]
    assert error["code"] == "damaged-checkpoint"
    assert str(shard(run, "step-00000250.a001")) in error["message"]


def test_a_verb_that_is_missing_or_unknown_is_told_with_the_way_out(ptx: Ptx) -> None:
    for typed in (["checkpoints"], ["checkpoints", "lst", "demo"]):
        done = ptx(*typed)
        assert done.returncode == 2
        assert "`ptx checkpoints --help` shows how it is used." in done.stderr
    shown = ptx.ok("checkpoints", "--help")
    for verb in ("list", "verify", "convert", "export", "prune"):
        assert f"  {verb} " in shown


@pytest.mark.slow
def test_export_gives_the_model_that_the_run_itself_left(ptx: Ptx, tmp_path: Path) -> None:
    """A real training on two ranks, cut by FSDP, exported from its last checkpoint."""
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\n"
        f"entrypoint: {{script: {Path(__file__).parents[2] / 'jobs' / 'train_lm.py'}, args: "
        f"{{steps: 4, context: 16, dim: 16, layers: 1, heads: 2, data: {__file__}, "
        "sample_bytes: 0}}\n"
        "resources: {procs_per_node: 2, gpus_per_node: 0}\n"
        "strategy: fsdp\n"
        "training: {micro_batch: 2, evaluation: {batches: 1}}\n"
        "checkpoint: {every_steps: 2, at_end: true}\n"
    )
    run = ptx.submit(tmp_path / "tiny.yaml")
    assert ptx("wait", run.name).returncode == 0, ptx.story(run)
    saved = read_manifest(run / "checkpoints" / "step-00000004.a000")
    assert saved.versions.keys() == {"ptx", "python", "torch"}
    assert ptx.ok("--version") == f"ptx {saved.versions['ptx']}\n"
    resolved = (run / "bundle" / "spec.yaml").read_bytes()
    assert saved.spec_sha256 == hashlib.sha256(resolved).hexdigest()
    out = tmp_path / "out"
    done = ptx("checkpoints", "export", "tiny", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: the model after step 4, 8 tensors\n"
    for file in (run / "model").iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()
    other = ptx("checkpoints", "export", "tiny", "-o", str(tmp_path / "no"), "--merged")
    assert other.returncode == 1
    assert "this run trains a whole model" in other.stderr
    assert not (tmp_path / "no").exists()
