"""What the agent and the shims promise, under the real launchers.

kill -9 of each process, under each launcher and through all of ptx: test_main_job_local.py.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.node_run import LAUNCHING, NodeRun, until

from launchers import registry
from launchers.facts import Facts, Runtime, Word

pytestmark = pytest.mark.slow

LAUNCHERS = ("torchrun", "accelerate", "deepspeed")
RUNTIME = """
export PTX_HEAD_ADDR=127.0.0.1 PTX_HEAD_PORT=$PTX_PORT PTX_LOCAL_ADDR=127.0.0.1 PTX_IS_HEAD=true
export CUDA_VISIBLE_DEVICES=
"""
SAVES = """
import os, signal, sys, time
told = []
def ask(number, frame):
    told.append(number)
    print("told", number, flush=True)
signal.signal(signal.SIGTERM, ask)
print("ready")
while not told:
    time.sleep(0.05)
time.sleep(2)
print("saved after", len(told))
"""
MEETING = """
import os, time
def meet():
    here = os.path.dirname(os.path.abspath(__file__))
    open(os.path.join(here, "there-" + os.environ["RANK"]), "w").close()
    while not all(os.path.exists(os.path.join(here, f"there-{rank}")) for rank in (0, 1)):
        time.sleep(0.01)
"""
"""Ranks wait for each other: a slow one would be told to end before it has come so far."""
FAILS = (
    MEETING
    + """
print("ready", flush=True)
meet()
if os.environ["RANK"] == "1":
    raise RuntimeError("no such shard")
time.sleep(3600)
"""
)
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
time.sleep(3600)
"""

Make = Callable[[str], NodeRun]


@pytest.fixture(params=LAUNCHERS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    runs: list[NodeRun] = []

    def one(rank: str) -> NodeRun:
        run = NodeRun(tmp_path, rank)
        facts = Facts(run_id=run.run_id, nodes=1, procs_per_node=2, gpus_per_node=0)
        launch = registry.get(request.param).render(facts)
        for name, data in launch.files.items():
            (run.bundle / name).write_bytes(data)
        exports = "".join(f"export {name}={quote(value)}\n" for name, value in launch.env.items())
        rank_argv = ["-I", "-S", f"{run.bundle}/agent.pyz", "shim", "--"]
        words = [*launch.argv, Runtime("${PTX_PYTHON}"), *rank_argv]
        words += [Runtime("${PTX_PYTHON}"), f"{run.bundle}/rank.py"]
        python = f"export PTX_PYTHON={shlex.quote(run.argv[0])}\n"
        text = python + RUNTIME + exports + LAUNCHING + "exec " + " ".join(map(quote, words))
        (run.bundle / "launch.sh").write_text(text + "\n")
        runs.append(run.start())
        return run

    yield one
    for run in runs:
        run.destroy()


def quote(word: Word) -> str:
    return f'"{word.template}"' if isinstance(word, Runtime) else shlex.quote(word)


def test_signals_to_every_process_reach_the_ranks_once_and_leave_them_time_to_save(
    make: Make,
) -> None:
    """SLURM sends its warning and its SIGTERM to every process of a step."""
    run = make(SAVES)
    run.until_ready()
    everybody = list(run.marked())
    assert len(everybody) >= 5
    for number in (signal.SIGUSR2, signal.SIGTERM):
        for pid in everybody:
            os.kill(pid, number)
    assert run.wait() == 0, run.story()
    assert run.ended()["reason"] == "completed"
    assert all("o saved after 1\n" in log for log in run.logs().values())
    run.assert_nothing_left_soon()


def test_the_rank_that_failed_is_named(make: Make) -> None:
    run = make(FAILS)
    run.until_ready()
    assert run.wait() == 1
    run.assert_nothing_left_soon()
    ended = run.ended()
    assert ended["reason"] == "rank-failed"
    first = ended["first_failure"]
    assert (first["rank"], first["code"]) == (1, 1)
    assert first["message"] == "RuntimeError: no such shard"
    assert ended["ranks"]["1"] == 1
    assert ended["ranks"]["0"] == -signal.SIGTERM


def test_sigterm_to_the_agent_ends_ranks_that_ignore_it(make: Make) -> None:
    run = make(STUBBORN)
    run.until_ready()
    before = run.marked()
    assert len(before) >= 5
    assert run.agent is not None
    os.kill(run.agent.pid, signal.SIGTERM)
    assert run.wait() == 1
    run.assert_nothing_left_soon()
    ended = run.ended()
    assert ended["reason"] == "terminated"
    assert ended["ranks"] == {"0": -signal.SIGKILL, "1": -signal.SIGKILL}


def test_a_failure_beside_a_rank_that_ignores_sigterm_is_over_within_the_limit(make: Make) -> None:
    run = make(
        STUBBORN.replace(
            'print("ready")',
            'print("ready", flush=True)\n'
            + MEETING
            + 'meet()\nif os.environ["RANK"] == "0": raise SystemExit(9)',
        )
    )
    run.until_ready()
    until(lambda: run.records(), "the failure", run.story)
    run.assert_nothing_left_soon()
    assert run.wait() == 1
    first = run.ended()["first_failure"]
    assert (first["rank"], first["code"]) == (0, 9)
