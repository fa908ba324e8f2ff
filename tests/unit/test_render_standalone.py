from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import register_plain

from orchestrator.agent.archive import agent_archive
from orchestrator.errors import UserError
from orchestrator.plan.plan import Target
from orchestrator.plan.planner import plan
from orchestrator.render.standalone import imports_ptx, standalone
from orchestrator.spec.job import JobSpec

AGENT = bytes(range(256)) * 40


def text(spec: dict[str, Any], script: bytes | None = None, agent: bytes = AGENT) -> str:
    whole = JobSpec.model_validate(
        {
            "name": "x",
            "scheduler": "slurm",
            "entrypoint": {"script": "train.py"},
            "resources": {"gpus_per_node": 0, "nodes": 2},
        }
        | spec
    )
    target = Target("/only/here/python", Path("/home/kim"))
    made = plan(whole, Path("job.yaml"), target, "x-000001", Path("/runs/x-000001"))
    return standalone(whole, made, agent, script).decode()


def test_another_scheduler_is_refused() -> None:
    with pytest.raises(UserError, match="scheduler is local"):
        text({"scheduler": "local"})


@pytest.mark.parametrize(
    "source",
    [
        b"import orchestrator.training\n",
        b"def main():\n    from orchestrator.training import ddp\n",
        b"import os, launchers.facts as f\n",
    ],
)
def test_an_entrypoint_that_needs_ptx_is_refused_with_that_reason(source: bytes) -> None:
    with pytest.raises(UserError, match=r"train\.py imports ptx"):
        text({}, source)


def test_a_module_of_ptx_is_refused() -> None:
    with pytest.raises(UserError, match="imports ptx"):
        text({"entrypoint": {"module": "orchestrator.training.run"}})


@pytest.mark.parametrize(
    "source", [b"import torch", b"from .orchestrator import x", b"not python (", b"\0", b"\xff"]
)
def test_other_entrypoints_need_no_ptx(source: bytes) -> None:
    assert not imports_ptx(source)


def test_nothing_of_this_machines_ptx_is_named() -> None:
    found = text({})
    assert "/only/here/python" not in found
    assert "/runs/x-000001" not in found


def test_it_asks_for_no_signal_and_no_requeue() -> None:
    found = text({"resources": {"gpus_per_node": 0, "time_limit": "1h"}})
    assert "--signal" not in found
    assert "#SBATCH --no-requeue" in found


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_NODEID=0 SLURMD_NODENAME=node0
exec "$@"
"""


def run(folder: Path, job: str, **env: str) -> subprocess.CompletedProcess[str]:
    """As sbatch would, on one node, with an srun that starts its one task here."""
    for name in ("bin", "tmp", "submit"):
        (folder / name).mkdir(parents=True)
    (folder / "bin" / "srun").write_text(SRUN)
    (folder / "bin" / "srun").chmod(0o755)
    (folder / "bin" / "python3").symlink_to(sys.executable)
    given = {
        "PATH": f"{folder}/bin:/usr/bin:/bin",
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "node0",
        "SLURM_SUBMIT_DIR": str(folder / "submit"),
        "TMPDIR": str(folder / "tmp"),
    }
    (folder / "job.sbatch").write_text(job)
    return subprocess.run(
        ["bash", str(folder / "job.sbatch")],
        env=given | env,
        cwd=folder / "submit",
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register_plain(monkeypatch)
    (tmp_path / "train.py").write_text(
        "import os, sys\n"
        "print('rank', os.environ['RANK'], sys.argv[1:], os.environ['PTX_RUN_ID'], flush=True)\n"
        "print('bundle', sorted(os.listdir(os.environ['PTX_BUNDLE'])))\n"
        "sys.exit(int(os.environ.get('CODE', '0')))\n"
    )
    return tmp_path


def job(here: Path, **more: Any) -> str:
    arguments = ["$(touch canary)", "PTX_END", "it's"]
    return text(
        {
            "launcher": "one-rank",
            "entrypoint": {"script": str(here / "train.py"), "args": arguments},
            "resources": {"gpus_per_node": 0},
            "workdir": str(here),
        }
        | more,
        agent=agent_archive(),
    )


def test_logs_and_exit_records_land_beside_the_submission(here: Path) -> None:
    folder = here / "it's $(touch canary) %j"
    done = run(folder, job(here))
    assert done.returncode == 0, done.stdout + done.stderr
    found = folder / "submit" / "ptx-runs" / "x-12"
    node = found / "attempts" / "000" / "node-0000"
    log = (node / "rank-00000.log").read_text()
    assert """rank 0 ['$(touch canary)', 'PTX_END', "it's"] x-12""" in log
    assert "bundle ['agent.pyz', 'launch.sh', 'plan.json']" in log
    record = json.loads((node / "rank-00000.exit.json").read_text())
    assert record["exit_code"] == 0
    assert '"type":"job_started","job_id":"12"' in (found / "events" / "job.jsonl").read_text()
    assert list((folder / "tmp").iterdir()) == []
    assert list(here.rglob("canary")) == []


def test_a_failing_rank_fails_the_job_and_leaves_nothing_on_the_node(here: Path) -> None:
    done = run(here / "there", job(here), CODE="3")
    assert done.returncode != 0
    assert list((here / "there" / "tmp").iterdir()) == []
    found = here / "there" / "submit" / "ptx-runs" / "x-12"
    record = found / "attempts" / "000" / "node-0000" / "rank-00000.exit.json"
    assert json.loads(record.read_text())["exit_code"] == 3


def test_a_secret_that_is_not_there_stops_the_job_with_its_name(here: Path) -> None:
    done = run(here / "there", job(here, secrets=["MY_TOKEN"]))
    assert done.returncode == 78
    assert "MY_TOKEN is a secret of this job" in done.stderr


def test_a_secret_comes_from_the_environment_at_sbatch(here: Path) -> None:
    done = run(here / "there", job(here, secrets=["CODE"]), CODE="0")
    assert done.returncode == 0, done.stdout + done.stderr
