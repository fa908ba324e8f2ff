"""Handwritten digits with plain PyTorch DDP. Nothing in this script knows ptx.

It reads what torchrun sets (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), so
`torchrun --nproc-per-node=2 jobs/examples/own_ddp.py` runs it as well.
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32, help="samples a rank")
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()

    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)  # ranks draw different weights; DDP starts all from rank 0's

    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=args.batch, sampler=sampler)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
    ddp = DistributedDataParallel(model, device_ids=[device.index] if gpu else None)
    optimizer = torch.optim.AdamW(ddp.parameters(), lr=args.lr)

    for epoch in range(1, args.epochs + 1):
        sampler.set_epoch(epoch)
        total, samples = torch.zeros(1, device=device), 0
        for image, label in loader:
            loss = F.cross_entropy(ddp(image.to(device)), label.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(image)
            samples += len(image)
        mean = total / samples / dist.get_world_size()  # the sampler gives all ranks as many
        dist.all_reduce(mean)
        if rank == 0:
            print(f"epoch {epoch} loss {mean.item():.4f}")

    checksum = sum(parameter.double().abs().sum().item() for parameter in model.parameters())
    print(f"rank {rank} of {dist.get_world_size()} parameters {checksum:.6f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
