"""The smallest distributed job: every rank adds its number to a sum. Needs only PyTorch."""

import os
import socket

import torch
import torch.distributed as dist


def main() -> None:
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()

    total = torch.tensor(rank + 1, device=device)
    dist.all_reduce(total)
    if total.item() != world_size * (world_size + 1) // 2:
        raise RuntimeError(f"rank {rank}: the sum over {world_size} ranks is {total.item()}")

    print(f"rank {rank} of {world_size} on {socket.gethostname()} {device}: sum {total.item()}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
