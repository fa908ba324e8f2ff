"""Each launcher really started: the ranks meet, and know who they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.ports import free_port

from launchers import registry
from launchers.facts import Facts
from orchestrator.render.quoting import sh

RANK = """
import json, os, sys
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
seen = {name: os.environ[name] for name in names}
seen.update(total=total.item(), size=dist.get_world_size(), argv=sys.argv[2:])
with open(os.path.join(sys.argv[1], f"rank-{dist.get_rank()}.json"), "w") as file:
    json.dump(seen, file)
dist.destroy_process_group()
"""

HOSTILE = ["a b", "$(x)", "$$ $local_rank ${local_rank} $$$", "%d {0}"]
LAUNCHERS = ["torchrun", "accelerate", "deepspeed"]
pytestmark = pytest.mark.slow


def start(facts: Facts, launcher: str, node: int, port: int, folder: Path) -> subprocess.Popen[str]:
    launch = registry.get(launcher).render(facts)
    for name, data in launch.files.items():
        (folder / name).write_bytes(data)
    exports = "".join(f"export {name}={sh(value)}\n" for name, value in launch.env.items())
    rank = launch.rank_words([sys.executable, "-u", str(folder / "rank.py"), str(folder), *HOSTILE])
    runtime = {
        "PTX_PYTHON": sys.executable,
        "PTX_BUNDLE": str(folder),
        "PTX_ATTEMPT": "0",
        "PTX_NODE_RANK": str(node),
        "PTX_HEAD_ADDR": "127.0.0.1",
        "PTX_HEAD_PORT": str(port),
        "PTX_IS_HEAD": "true" if node == 0 else "false",
        "PTX_LOCAL_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PET_", "MASTER_"))}
    return subprocess.Popen(
        ["bash", "-euc", f"{exports}exec {sh(launch.argv)} {sh(rank)}"],
        env=inherited | runtime,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(facts: Facts, launcher: str, folder: Path) -> list[dict[str, object]]:
    (folder / "rank.py").write_text(RANK)
    port = free_port()
    nodes = [start(facts, launcher, node, port, folder) for node in range(facts.nodes)]
    outputs = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0] * facts.nodes, "\n\n".join(outputs)
    return [
        json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(facts.world_size)
    ]


@pytest.mark.parametrize(
    ("launcher", "procs"), [*((launcher, 2) for launcher in LAUNCHERS), ("accelerate", 1)]
)
def test_one_node_of_cpu_ranks_meets(launcher: str, procs: int, tmp_path: Path) -> None:
    facts = Facts(run_id="r-1", nodes=1, procs_per_node=procs, gpus_per_node=0)
    ranks = run(facts, launcher, tmp_path)
    assert [rank["RANK"] for rank in ranks] == [str(k) for k in range(procs)]
    assert [rank["LOCAL_RANK"] for rank in ranks] == [str(k) for k in range(procs)]
    assert {rank["LOCAL_WORLD_SIZE"] for rank in ranks} == {str(procs)}
    assert {rank["total"] for rank in ranks} == {sum(range(1, procs + 1))}
    assert all(rank["argv"] == HOSTILE for rank in ranks)


@pytest.mark.parametrize(
    ("launcher", "backend"),
    [
        ("torchrun", "c10d"),
        ("torchrun", "static"),
        ("accelerate", "c10d"),
        ("accelerate", "static"),
        ("deepspeed", "c10d"),
    ],
)
def test_two_nodes_of_two_ranks_are_a_world_of_four(
    launcher: str, backend: str, tmp_path: Path
) -> None:
    facts = Facts(run_id="r-1", nodes=2, procs_per_node=2, gpus_per_node=0, rdzv_backend=backend)
    ranks = run(facts, launcher, tmp_path)
    assert [rank["WORLD_SIZE"] for rank in ranks] == ["4"] * 4
    assert [rank["size"] for rank in ranks] == [4] * 4
    assert [rank["total"] for rank in ranks] == [10.0] * 4
    assert [rank["LOCAL_RANK"] for rank in ranks] == ["0", "1", "0", "1"]


@pytest.mark.parametrize("strategy", ["fsdp", "zero"])
def test_accelerate_starts_every_rank_under_each_strategy(strategy: str, tmp_path: Path) -> None:
    facts = Facts(
        run_id="r-1",
        nodes=1,
        procs_per_node=2,
        gpus_per_node=0,
        strategy=strategy,
        zero_stage=3 if strategy == "zero" else 0,
        data_parallel_size=2,
    )
    (tmp_path / "deepspeed.json").write_text("{}")
    assert len(run(facts, "accelerate", tmp_path)) == 2
