"""Number formats: autocast, gradient scaling, TF32 and reproducible kernels."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from orchestrator.spec.training import Training

_MIXED = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


def prepare_arithmetic(training: Training) -> None:
    """Seed PyTorch and choose kernels. Call once, before anything is put on a GPU.

    TF32 matrix products (10 bits of mantissa) are allowed where the precision is mixed anyway;
    fp32 stays fp32.
    """
    torch.manual_seed(training.seed)
    torch.set_float32_matmul_precision("highest" if training.precision == "fp32" else "high")
    if training.deterministic:
        # cuBLAS is reproducible only with a fixed workspace, chosen before it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def cast_parameters(model: nn.Module, training: Training) -> None:
    """With precision bf16, keep parameters (so gradients and optimizer state) in bfloat16.

    Buffers stay as they are: rotary tables in bfloat16 would merge neighbouring positions.
    """
    if training.precision == "bf16":
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)


def autocast(training: Training, device: torch.device) -> AbstractContextManager[object]:
    """The context for forward passes; does nothing unless the precision is mixed."""
    dtype = _MIXED.get(training.precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()


def grad_scaler(training: Training, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling (Micikevicius et al. 2018), which only fp16 needs; disabled it is a no-op."""
    return torch.amp.GradScaler(device.type, enabled=training.precision == "fp16-mixed")
