"""Handwritten digits with plain PyTorch DDP, saved when it is told to stop, and gone on with there.

Nothing of ptx is imported. Under ptx the script is told before a time limit and at a preemption;
anywhere else it trains to its end.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32, help="samples a rank")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--checkpoint", default="digits.pt", help="in the run's folder")
    args = parser.parse_args()

    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)

    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32, device=device) / 16
    labels = torch.tensor(digits.target, device=device)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
    ddp = DistributedDataParallel(model, device_ids=[device.index] if gpu else None)
    optimizer = torch.optim.AdamW(ddp.parameters(), lr=args.lr)

    checkpoint = Path(os.environ.get("PTX_RUN_DIR", "."), args.checkpoint)
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
        print(f"rank {rank} goes on after step {step}", flush=True)

    def save() -> None:
        if rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)

    stop_file = Path(os.environ.get("PTX_STOP_FILE", "/nonexistent"))
    if "PTX_STOP_FILE" in os.environ:  # which is there after a SIGTERM, too
        signal.signal(signal.SIGTERM, lambda *_: None)

    while step < args.steps:
        # A step's samples follow from its number, so there is no position in the data to save.
        seed = torch.Generator().manual_seed(step * world_size + rank)
        batch = torch.randint(len(images), (args.batch,), generator=seed).to(device)
        loss = F.cross_entropy(ddp(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if rank == 0 and step % 10 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)

        told = torch.tensor(float(stop_file.exists()), device=device)
        dist.all_reduce(told)  # what one rank has seen all know, at the same step
        if told:
            save()
            dist.barrier()  # a launcher ends the others when the first has ended
            print(f"rank {rank} stops after step {step}", flush=True)
            sys.exit(143)

    checksum = sum(parameter.double().abs().sum().item() for parameter in model.parameters())
    print(f"rank {rank} of {world_size} parameters {checksum:.6f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
