"""A small Llama over the bytes of Python's own source with the Hugging Face Trainer.

Nothing in this script knows ptx; `torchrun --nproc-per-node=2 jobs/examples/own_trainer.py` and
`accelerate launch` run it as well.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


class Windows(Dataset):
    """Pieces of `context` bytes of the modules beside Python's os.py."""

    def __init__(self, context: int) -> None:
        modules = sorted(Path(os.__file__).parent.glob("*.py"))
        text = b"".join(module.read_bytes() for module in modules)
        count = len(text) // context
        self.bytes = torch.frombuffer(bytearray(text), dtype=torch.uint8)[: count * context]
        self.bytes = self.bytes.view(count, context)

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = self.bytes[index].long()
        return {"input_ids": tokens, "labels": tokens}  # the model shifts the labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="samples a rank")
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=args.steps,
            per_device_train_batch_size=args.batch,
            learning_rate=args.lr,
            logging_steps=max(1, args.steps // 10),
            use_cpu=not torch.cuda.is_available(),
            ddp_find_unused_parameters=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        rank, ranks = settings.process_index, settings.world_size
        torch.manual_seed(rank)  # the Trainer gives all ranks rank 0's weights
        model = LlamaForCausalLM(config)
        Trainer(model, settings, train_dataset=Windows(128)).train()

    checksum = sum(parameter.double().abs().sum().item() for parameter in model.parameters())
    print(f"rank {rank} of {ranks} parameters {checksum:.6f}")


if __name__ == "__main__":
    main()
