"""Handwritten digits with Hugging Face accelerate. Nothing in this script knows ptx.

`accelerate launch jobs/examples/own_accelerate.py` runs it as well.
"""

import argparse

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32, help="samples a rank")
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()

    accelerator = Accelerator()
    torch.manual_seed(accelerator.process_index)  # prepare() gives all ranks rank 0's weights

    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=args.lr),
        DataLoader(data, batch_size=args.batch, shuffle=True),
    )

    for epoch in range(1, args.epochs + 1):
        total, batches = torch.zeros((), device=accelerator.device), 0
        for image, label in loader:
            loss = F.cross_entropy(model(image), label)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            total += loss.detach()
            batches += 1
        mean = accelerator.reduce(total / batches, reduction="mean")
        accelerator.print(f"epoch {epoch} loss {mean.item():.4f}")

    rank, ranks = accelerator.process_index, accelerator.num_processes
    checksum = sum(parameter.double().abs().sum().item() for parameter in model.parameters())
    print(f"rank {rank} of {ranks} parameters {checksum:.6f}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
