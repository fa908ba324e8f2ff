"""A recurrent network over the bytes of Python's own source with Lightning Fabric.

Nothing in this script knows ptx; `torchrun --nproc-per-node=2 jobs/examples/own_fabric.py` runs
it as well. Needs lightning-fabric.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CONTEXT = 64


class NextByte(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, dim)
        self.cells = nn.GRU(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(self.embedding(tokens))[0])


def source() -> TensorDataset:
    modules = sorted(Path(os.__file__).parent.glob("*.py"))
    text = b"".join(module.read_bytes() for module in modules)
    count = len(text) // CONTEXT
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8)[: count * CONTEXT]
    return TensorDataset(tokens.view(count, CONTEXT).long())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="samples a rank")
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()

    # Under a launcher Fabric starts no processes, but wants to be told how many there are.
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // devices
    fabric = Fabric(devices=devices, num_nodes=nodes)
    fabric.launch()
    torch.manual_seed(fabric.global_rank)  # setup() gives all ranks rank 0's weights

    model = NextByte(dim=96)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(DataLoader(source(), batch_size=args.batch, shuffle=True))

    for step, (tokens,) in zip(range(1, args.steps + 1), loader, strict=False):
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        if step % max(1, args.steps // 10) == 0:
            fabric.print(f"step {step} loss {fabric.all_reduce(loss.detach()).item():.4f}")

    checksum = sum(parameter.double().abs().sum().item() for parameter in model.parameters())
    print(f"rank {fabric.global_rank} of {fabric.world_size} parameters {checksum:.6f}")


if __name__ == "__main__":
    main()
