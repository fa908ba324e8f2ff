"""A case of benchmarks/gpu.py by the Hugging Face Trainer, with peft for adapters."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from orchestrator.training.batch import IGNORED
from orchestrator.training.sampling import Shuffle
from peers.documents import PackedDocuments
from peers.llama_case import Case, DeviceClock, contend

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit"}


class Packed:
    """ptx's very batches under the names that transformers has for them; its models shift the
    labels themselves. `shuffle` gives the order in which ptx takes the samples."""

    def __init__(self, data: PackedDocuments, shuffle: Shuffle, *, bounds: bool) -> None:
        """`bounds`: whether to tell where documents end, beside their positions."""
        self._data, self._shuffle, self._bounds = data, shuffle, bounds

    def __call__(self, numbers: Sequence[int]) -> dict[str, Any]:
        batch = self._data.take([self._shuffle.position(number) for number in numbers])
        labels = batch.targets.roll(1, dims=1)
        labels[:, 0] = IGNORED
        found: dict[str, Any] = {
            "input_ids": batch.inputs["tokens"],
            "position_ids": batch.inputs["positions"],
            "labels": labels,
        }
        if self._bounds:
            ends, longest = batch.inputs["cu_seqlens"], batch.extras["longest"]
            found |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
            found |= {"max_length_q": longest, "max_length_k": longest}
        return found


class Numbers(Dataset[int]):
    """The Trainer takes samples by number; `Packed` turns the numbers into batches."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> int:
        return number


def attention(case: Case) -> str:
    """The best for packed sequences that is installed: the package flash-attn, else a mask."""
    flash = case.device == "cuda" and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"


def built(case: Case) -> nn.Module:
    """bfloat16 weights where the case's precision is bf16, and adapters as peft makes them."""
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    auto: Any = AutoModelForCausalLM
    with torch.device(case.device):
        model: Any = auto.from_config(
            case.config(), dtype=dtype, attn_implementation=attention(case)
        )
    if case.lora:
        from peft import LoraConfig, get_peft_model

        adapter = LoraConfig(
            task_type="CAUSAL_LM",
            r=case.rank,
            lora_alpha=2 * case.rank,
            lora_dropout=0.0,
            target_modules="all-linear",
        )
        model = get_peft_model(model, adapter)
    return model  # type: ignore[no-any-return]


class Clocked(Trainer):
    """Starts the clock with the optimizer, which the Trainer makes late."""

    clock: DeviceClock

    def create_optimizer(self, *given: Any) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(*given)
        self.clock = DeviceClock(optimizer, self.args.device.type)
        return optimizer


def train(case: Case) -> tuple[nn.Module, DeviceClock, float, str]:
    samples = case.all_steps * case.micro_batch
    data = PackedDocuments(
        samples=samples, context=case.context, vocabulary=case.vocabulary, seed=case.seed
    )
    model, implementation = built(case), attention(case)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            use_cpu=case.device == "cpu",
            bf16=True,
            max_steps=case.all_steps,
            per_device_train_batch_size=case.micro_batch,
            learning_rate=case.lr,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            optim=OPTIMIZERS[case.optimizer],
            torch_compile=case.peer_compile,
            logging_steps=case.all_steps,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Clocked(
            model,
            settings,
            data_collator=Packed(
                data,
                Shuffle(samples, seed=case.seed),
                bounds=implementation == "flash_attention_2",
            ),
            train_dataset=Numbers(samples),
        )
        loss = trainer.train().training_loss
    how = f"Trainer, {implementation}" + (", compiled" if case.peer_compile else "")
    return model, trainer.clock, loss, how


if __name__ == "__main__":
    contend(train)
