"""What people and machines say past SLURM: a cancel it never heard of, a SIGTERM it never sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import cluster_processes as processes
import pytest
from cluster import Cluster
from restarting import Start, SteppingRun, silent_slurm
from support.disturb import agents_of, ranks_of, supervisors_of

from orchestrator.agent.takeover import living_sruns

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("on_disturbed"),
]
CANCEL_KILLED = (
    "import os, sys; from orchestrator.schedulers.slurm import Slurm\n"
    "Slurm.cancel = lambda *_: os.kill(os.getpid(), 9)\n"
    "from orchestrator.cli.main import main; sys.exit(main())"
)
"""`ptx` that dies between its own note of a cancel and SLURM."""


def cancel_killed(run: SteppingRun) -> None:
    argv = [sys.executable, "-c", CANCEL_KILLED, "cancel", run.layout.run_id]
    env = os.environ | {"PTX_RUNS": str(run.ptx.runs)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run.events("cancel") and not run.events("cancel_failed")


@pytest.mark.parametrize("requeue", [True, False])
def test_a_cancel_that_slurm_never_heard_of_holds_where_the_run_would_go_on(
    start: Start, requeue: bool
) -> None:
    run = start(
        {"steps": 10000}, **({} if requeue else {"slurm": {"options": {"no-requeue": True}}})
    )
    run.until_step(5)
    cancel_killed(run)
    assert run.ptx.state(run.layout.root)["state"] == "running"
    subprocess.run(["scancel", "--signal=USR2", run.job], check=True)
    assert run.ended() == "FAILED"
    assert run.endings() == [("cancelled", False, False, None)]
    assert not run.events("requeue") and len(run.events("submitted")) == 1
    assert run.ptx.state(run.layout.root)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("nodes", "silent"), [(2, False), pytest.param(1, True, marks=pytest.mark.soak)]
)
def test_a_sigterm_to_every_process_of_the_batch_host_that_is_not_slurms_loses_no_run(
    start: Start, disturbed: Cluster, nodes: int, silent: bool
) -> None:
    """As of a host that is shut down in good order, before SLURM knows of it."""
    run = start({"steps": 10000}, resources={"nodes": nodes})
    run.until_step(5)
    root, job = run.layout.root, run.job
    sruns = [process.pid for process in living_sruns(job, 0)]
    everything = [*supervisors_of(root), *sruns, *agents_of(root, 0), *ranks_of(root, 0)]
    assert sruns and len(everything) >= 3
    with silent_slurm(disturbed) if silent else nullcontext():
        for pid in everything:
            processes.send(pid, signal.SIGTERM)  # srun is two: one may be gone with the other
        time.sleep(130 if silent else 0)  # two questions, of a minute each, are not answered
    run.until_attempt(1)
    # srun that is told to end ends its step at once; whoever had time to say more did.
    assert run.endings()[0][:3] == ("node-failure", True, False)
    assert run.job == job
