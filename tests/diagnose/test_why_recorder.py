"""Dumps of torch's flight recorder: who began fewer collectives, and nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun
from support.ptx import Ptx
from support.why_case import Case
from support.why_provoked import submit

from orchestrator.agent.devices import rank_environment
from orchestrator.cli.why_page import why_page
from orchestrator.diagnose import recorder
from orchestrator.diagnose.why import why
from orchestrator.runs.observe import observe_one

ABORT = -6
WATCHDOG = (
    "[rank{rank}]:[E1 ProcessGroupNCCL.cpp:607] [Rank {rank}] Watchdog caught collective operation "
    "timeout: WorkNCCL(SeqNum=8, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) "
    "ran for 600061 milliseconds before timing out."
)
REAL = """
import os, time
import torch, torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace
rank = int(os.environ["RANK"])
def step(number):
    dist.all_reduce(torch.ones(4))
dist.init_process_group("gloo")
for number in range(3):
    step(number)
if rank != 1:
    dist.all_reduce(torch.ones(2), async_op=True)
name = os.environ["TORCH_FR_DUMP_TEMP_FILE"]
with open(f"{name}{rank}.new", "wb") as file:
    file.write(_dump_fr_trace())
os.rename(f"{name}{rank}.new", f"{name}{rank}")
while not all(os.path.exists(f"{name}{other}") for other in range(3)):
    time.sleep(0.01)
os._exit(1)
"""


def entry(number: int, call: str = "nccl:all_reduce", **more: Any) -> dict[str, Any]:
    """As torch 2.13 writes one, format 2.10."""
    return {
        "frames": [
            {
                "name": "all_reduce",
                "filename": "/env/site-packages/torch/distributed/distributed_c10d.py",
                "line": 3245,
            },
            {"name": "step", "filename": "/home/ann/train.py", "line": 40},
        ],
        "record_id": number,
        "pg_id": 0,
        "process_group": ("0", "default_pg"),
        "collective_seq_id": number,
        "p2p_seq_id": 0,
        "op_id": number,
        "profiling_name": call,
        "time_created_ns": 1795257787334564253,
        "input_sizes": [[2]],
        "input_dtypes": ["Float"],
        "output_sizes": [[2]],
        "output_dtypes": ["Float"],
        "state": "scheduled",
        "time_discovered_started_ns": None,
        "time_discovered_completed_ns": None,
        "retired": False,
        "timeout_ms": 600000,
        "is_p2p": False,
        **more,
    }


def doubling(depth: int) -> list[Any]:
    """Small as a pickle, 2 ** depth words as text."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


def dump(run: MadeRun, rank: int, *entries: dict[str, Any]) -> Path:
    path = run.layout.node(0, 0) / f"{recorder.PREFIX}{rank}"
    data = {"version": "2.10", "pg_config": {}, "entries": list(entries)}
    path.write_bytes(pickle.dumps(data, protocol=2))
    return path


@pytest.fixture
def timed_out(tmp_path: Path) -> MadeRun:
    """All four ranks were aborted by their watchdogs, which do not say at which collective."""
    run = MadeRun(tmp_path, "job-aaaaaa", procs=4).submitted().started()
    for rank in range(4):
        leave(run, rank, WATCHDOG.format(rank=rank), code=ABORT)
    node_ended(run, dict.fromkeys(range(4), ABORT), first=0)
    return run.over().event(62, "supervisor_ended", rc=1)


def test_the_rank_that_began_fewer_collectives_is_named(timed_out: MadeRun) -> None:
    for rank in range(4):
        dump(timed_out, rank, *(entry(number) for number in range(1, 8 if rank == 2 else 9)))
    told = why(observe_one(timed_out.layout, ask=False)[0])
    assert told.first is not None
    assert (told.first.rank, told.unsure) == (2, ())
    assert [(one.ranks, one.call, one.stopped) for one in told.stands] == [
        ((2,), "all_reduce number 7", True),
        ((0, 1, 3), "all_reduce number 8", False),
    ]
    assert (told.stands[1].path, told.stands[1].line) == ("/home/ann/train.py", 40)


def test_ranks_in_step_leave_nobody_named_by_their_dumps(timed_out: MadeRun) -> None:
    for rank in range(4):
        dump(timed_out, rank, entry(8))
    told = why(observe_one(timed_out.layout, ask=False)[0])
    assert told.stands == ()


def test_a_group_of_which_only_some_are_behind_counts_alone(timed_out: MadeRun) -> None:
    """Ranks of another process group have counts of their own."""
    for rank in range(4):
        mine = entry(3 + rank // 2, process_group=(str(10 + rank // 2), "tensor"))
        dump(timed_out, rank, entry(7 if rank == 3 else 8), mine)
    lasts = recorder.recorded([timed_out.layout.node(0, 0)])
    assert recorder.behind(lasts) == [3]


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"entries": [Harm()]}),
        pickle.dumps({"entries": [Harm()]}, protocol=0),
        b"cos\nsystem\n(S'mkdir harmed'\ntR.",
        b"",
        b"\x80\x02}",
        b"\x80\x02}q\x00X\x07\x00\x00\x00entriesq\x01K\x05s.",
        pickle.dumps({"entries": [{"collective_seq_id": "x", "process_group": 3}, 7]}),
        pickle.dumps([1, 2]),
        pickle.dumps({"entries": [entry(10**5000), entry(9, process_group=(doubling(200),))]}),
        b"\x80\x02]q\x00h\x00a.",
        os.urandom(4096),
    ],
)
def test_what_is_no_dump_is_passed_over_and_runs_nothing(
    data: bytes, timed_out: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dump(timed_out, 0, entry(7))
    dump(timed_out, 1, entry(8))
    dump(timed_out, 3, entry(8)).write_bytes(data)
    told = why(observe_one(timed_out.layout, ask=False)[0])
    assert not (tmp_path / "harmed").exists()
    assert [one.ranks for one in told.stands] == [(0,), (1,)]


def test_text_in_a_dump_moves_no_cursor(timed_out: MadeRun) -> None:
    for rank in range(3):
        dump(timed_out, rank, entry(7 + (rank == 2), "nccl:\x1b[2Jall_reduce"))
    observed = observe_one(timed_out.layout, ask=False)[0]
    page = why_page(observed, why(observed))
    assert "all_reduce number 7" in page and "\x1b" not in page


def test_a_dump_with_harm_in_it_would_do_harm(tmp_path: Path) -> None:
    """Else the test above shows nothing."""
    code = f"import pickle; pickle.loads({pickle.dumps(Harm())!r})"
    path = f"{Path(__file__).parent}"
    subprocess.run(
        [sys.executable, "-c", code.replace(__name__, Path(__file__).stem)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{path}:{Path(__file__).parents[1]}:{Path.cwd()}"},
        check=False,
    )
    assert (tmp_path / "harmed").exists()


def test_a_file_that_is_too_large_is_not_read(timed_out: MadeRun) -> None:
    path = dump(timed_out, 0, entry(7))
    with path.open("ab") as file:
        file.truncate(recorder.MOST_BYTES + 1)
    assert recorder.read_dump(path) is None


def test_ranks_find_their_recorders_file_in_the_node_folder() -> None:
    found = rank_environment({"PTX_NODE_DIR": "/r/attempts/000/node-0000"})
    assert found["TORCH_FR_DUMP_TEMP_FILE"] == f"/r/attempts/000/node-0000/{recorder.PREFIX}"
    assert found["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"


@pytest.mark.parametrize("name", ["TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"])
def test_a_file_that_the_person_named_stays(name: str) -> None:
    found = rank_environment({"PTX_NODE_DIR": "/r", name: "/mine/"})
    assert found[name] == "/mine/"
    assert "/r" not in found.get("TORCH_FR_DUMP_TEMP_FILE", "")


@pytest.mark.slow
def test_the_installed_torch_writes_what_is_read(tmp_path: Path) -> None:
    """gloo's collectives are recorded in the same format as NCCL's."""
    ptx = Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state")})
    case = Case("recorded", "", REAL, "failed", 1, None, procs=3)
    from contextlib import ExitStack

    with ExitStack() as stack:
        run = submit(case, tmp_path / "spec", ptx, stack)
        ptx("wait", run.name, "--timeout", "100s")
    node = run / "attempts/000/node-0000"
    lasts = recorder.recorded([node])
    assert recorder.behind(lasts) == [1], ptx.story(run)
    rows = recorder.stands(lasts, [1])
    assert [(one.ranks, one.call) for one in rows] == [
        ((1,), "all_reduce number 3"),
        ((0, 2), "all_reduce number 4"),
    ]
    script = str(tmp_path / "spec/train.py")
    assert [(one.path, one.line) for one in rows] == [(script, 7), (script, 12)]
    assert json.loads(ptx.ok("why", run.name, "--json"))["class"] == "failed"
