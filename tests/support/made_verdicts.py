"""What `ptx why` says of run folders that are made by hand, and what ranks leave in them."""

from __future__ import annotations

import signal

from support.made_runs import MadeRun

from orchestrator.diagnose.verdict import Verdict
from orchestrator.diagnose.why import why
from orchestrator.runs.observe import observe_one

TERM, KILL, ABORT = -signal.SIGTERM, -signal.SIGKILL, -signal.SIGABRT
GLOO = "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/"
CLOSED = f"{GLOO}pair.cc:553] Connection closed by peer [10.0.0.2]:4242."
TIMEOUT = f"{GLOO}unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete"
WATCHDOG = (
    "[rank{rank}]:[E1 ProcessGroupNCCL.cpp:607] [Rank {rank}] Watchdog caught collective operation "
    "timeout: WorkNCCL(SeqNum={seq}, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) "
    "ran for 600061 milliseconds before timing out."
)
STACK = """Fatal Python error: Aborted

Thread 0x00007f00 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait

Current thread 0x00007f01 (most recent call first):
{frames}"""
IN_COLLECTIVE = """  File "/env/site-packages/torch/distributed/c10d.py", line 3252 in all_reduce
  File "/home/ann/train.py", line 40 in step"""
ELSEWHERE = """  File "/home/ann/data.py", line 7 in load
  File "/home/ann/train.py", line 38 in step"""


def traceback(last: str) -> str:
    return (
        "Traceback (most recent call last):\n"
        '  File "/home/ann/train.py", line 30, in <module>\n'
        f"    main()\n{last}"
    )


def verdict(run: MadeRun, attempt: int | None = None) -> Verdict:
    observed, _ = observe_one(run.layout, ask=False)
    return why(observed, attempt=attempt)


def over(run: MadeRun) -> Verdict:
    """After the supervisor has gone."""
    run.over().event(62, "supervisor_ended", rc=1)
    return verdict(run)
