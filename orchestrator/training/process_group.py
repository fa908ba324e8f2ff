"""Joining the process group, and checking that it and the device are what was planned."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from orchestrator.training.errors import PlanMismatch
from orchestrator.training.memory.known import known_from
from orchestrator.training.plan import TrainingPlan


@dataclass(frozen=True)
class Rank:
    """This process among the others, and the device it computes on."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def rank_from(environ: Mapping[str, str], plan: TrainingPlan) -> Rank:
    """Read RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; absent means one process.

    Raises PlanMismatch where fewer or more ranks started than were planned (a launcher that
    falls back to independent processes trains as many separate models and exits with 0), or
    where the planned GPU is not there.
    """
    world_size = int(environ.get("WORLD_SIZE", "1"))
    if world_size != plan.world_size:
        raise PlanMismatch(
            f"{plan.world_size} ranks were planned and the launcher started {world_size}",
            hint="start the run with `ptx submit`, which gives the launcher the planned numbers",
        )
    local_rank = int(environ.get("LOCAL_RANK", "0"))
    return Rank(int(environ.get("RANK", "0")), world_size, local_rank, _device(plan, local_rank))


def _device(plan: TrainingPlan, local_rank: int) -> torch.device:
    if plan.gpus_per_node == 0:
        return torch.device("cpu")
    seen = torch.cuda.device_count()
    if local_rank >= seen:
        raise PlanMismatch(
            f"local rank {local_rank} was planned on a GPU of its own and PyTorch "
            f"{torch.__version__} sees {seen} here",
            hint="check the driver and that this is a CUDA build of PyTorch, "
            "or set resources.gpus_per_node: 0",
        )
    return torch.device("cuda", local_rank)


def check_precision(plan: TrainingPlan, device: torch.device) -> None:
    """Raise PlanMismatch where the plan wants bf16 and the GPU would only emulate it."""
    if not plan.training.precision.startswith("bf16") or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise PlanMismatch(
            f"training.precision is {plan.training.precision} and "
            f"{torch.cuda.get_device_name(device)} has no bf16 arithmetic",
            hint="set training.precision to fp16-mixed or fp32",
        )


@contextmanager
def process_group(plan: TrainingPlan, rank: Rank) -> Iterator[None]:
    """Join the group that the environment describes, and leave it at the end.

    On GPUs tensors travel through NCCL, and CPU tensors through gloo beside it: what the ranks
    tell each other every step must not wait for the GPU. After a failure the group is left to
    the end of the process, since leaving it in order would wait for ranks that may be gone.
    Raises PlanMismatch where the group is not the planned one.
    """
    _allow_all_files()
    if rank.device.type == "cuda":
        torch.cuda.set_device(rank.device)
    for name, value in _ALONE.items():
        os.environ.setdefault(name, value)
    store, _, _ = next(rendezvous("env://"))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if rank.device.type == "cuda" else "gloo",
        # Ranks that start anew in place (see memory/restart) may find the keys of before.
        store=PrefixStore(f"round/{known_from(os.environ).round}", store),
        rank=rank.rank,
        world_size=rank.world_size,
    )
    if (dist.get_world_size(), dist.get_rank()) != (plan.world_size, rank.rank):
        raise PlanMismatch(
            f"{plan.world_size} ranks were planned and the process group has "
            f"{dist.get_world_size()}, of which this is {dist.get_rank()} and not {rank.rank}"
        )
    yield
    dist.destroy_process_group()


def _allow_all_files() -> None:
    """gloo holds a connection to every other rank in every group: the usual soft limit of 1,024
    open files ends a job of a few hundred ranks."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def store_outlives_ranks() -> bool:
    """Whether the launcher's agent has the store through which ranks find each other (torchrun,
    accelerate); else rank 0 has it."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


# `python jobs/train_lm.py` alone, without a launcher: a group of one, on a port that is free.
_ALONE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}
