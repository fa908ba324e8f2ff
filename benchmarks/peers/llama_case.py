"""What benchmarks/gpu.py trains: a Llama of real shape with random weights, whole or by LoRA."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.training.flops import shape_of
from orchestrator.training.memory.shortage import is_out_of_memory

SHAPES: dict[str, dict[str, Any]] = {
    # Llama 3.2 1B and Llama 3.1 8B, as their config.json say.
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class Case:
    """One training. It goes from process to process as a JSON object of these fields."""

    shape: str
    """A name of SHAPES."""
    lora: bool
    micro_batch: int
    """Sequences a step."""
    context: int = 4096
    """Tokens a sequence."""
    warm_up: int = 5
    steps: int = 10
    """That are timed, after `warm_up` others, in which kernels are compiled and chosen."""
    precision: str = "bf16"
    """Of the spec: bf16 (parameters, gradients and optimizer state too), or bf16-mixed."""
    optimizer: str = "adamw"
    """Of the spec: adamw, or adamw-8bit (bitsandbytes)."""
    compile: bool = True
    """ptx's torch.compile of each layer."""
    peer_compile: bool = False
    """The Trainer's torch.compile of the whole model."""
    rank: int = 16
    """Of the adapters, on all linear layers."""
    lr: float = 1e-5
    seed: int = 0
    device: str = "cuda"

    @property
    def name(self) -> str:
        return f"{self.shape}-{'lora' if self.lora else 'full'}"

    @property
    def all_steps(self) -> int:
        return self.warm_up + self.steps

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.micro_batch * self.context

    @property
    def vocabulary(self) -> int:
        return int(SHAPES[self.shape]["vocab_size"])

    def config(self) -> Any:
        """transformers' configuration."""
        from transformers import LlamaConfig

        return LlamaConfig(
            **SHAPES[self.shape],
            max_position_embeddings=self.context,
            rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        )


class DeviceClock:
    """When each optimizer step ended on the device, by the hook that every optimizer offers.

    On a GPU the marks are events in its queue: the host waits for none of them before the end.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: str) -> None:
        self._cuda = device == "cuda"
        self._ends: list[torch.cuda.Event] = []
        self._times: list[float] = []
        optimizer.register_step_post_hook(self._ended)

    def _ended(self, *_: object) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._ends.append(event)
        else:
            self._times.append(time.perf_counter())

    def seconds(self, case: Case) -> list[float]:
        """Of each timed step. Raises RuntimeError where another number of steps was made."""
        if self._cuda:
            torch.cuda.synchronize()
            first = self._ends[0]
            self._times = [first.elapsed_time(end) / 1e3 for end in self._ends]
        if len(self._times) != case.all_steps:
            raise RuntimeError(f"{len(self._times)} steps were made and not {case.all_steps}")
        ends = self._times[case.warm_up - 1 :]
        return [end - begin for begin, end in pairwise(ends)]


Contender = Callable[[Case], tuple[nn.Module, DeviceClock, float, str]]
"""Train a case in this process: the bare model, its clock, the mean loss in nats over all steps,
and how it was done in words."""


def contend(train: Contender) -> None:
    """The main function of a contender's process: CASE OUT.json, both on the command line.

    OUT.json tells the seconds of each timed step, the peak of memory and the model's arithmetic,
    or `{"error": "out of memory"}`.
    """
    fields, out = sys.argv[1:]
    case = Case(**json.loads(fields))
    torch.manual_seed(case.seed)
    try:
        model, clock, loss, how = train(case)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        Path(out).write_text(json.dumps({"error": "out of memory"}))
        return
    shape = shape_of(model)
    found = {
        "step_seconds": clock.seconds(case),
        "memory_bytes": _peak_memory(case.device),
        "reserved_bytes": torch.cuda.max_memory_reserved() if case.device == "cuda" else None,
        "loss": loss,
        "how": how,
        "flops_per_token": shape.flops_per_token(case.context),
        "flops_formula": shape.formula,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    Path(out).write_text(json.dumps(found))


def _peak_memory(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
