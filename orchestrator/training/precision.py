"""Number formats: autocast, gradient scaling, TF32 and reproducible kernels."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase

from orchestrator.spec.training import Training

_MIXED = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


def prepare_arithmetic(training: Training) -> None:
    """Seed every random generator and choose kernels. Call once, before anything is put on a GPU.

    TF32 matrix products (10 bits of mantissa) are allowed where the precision is mixed anyway;
    fp32 stays fp32.
    """
    random.seed(training.seed)
    np.random.seed(training.seed % 2**32)
    torch.manual_seed(training.seed)
    torch.set_float32_matmul_precision("highest" if training.precision == "fp32" else "high")
    if training.deterministic:
        # cuBLAS is reproducible only with a fixed workspace, chosen before it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def compute_dtype(training: Training) -> torch.dtype:
    """What matrices are multiplied in."""
    return (
        torch.bfloat16
        if training.precision == "bf16"
        else _MIXED.get(training.precision, torch.float32)
    )


def cast_parameters(model: nn.Module, training: Training) -> None:
    """With precision bf16, keep parameters (so gradients and optimizer state) in bfloat16.

    Buffers stay as they are: rotary tables in bfloat16 would merge neighbouring positions. So do
    norms over the batch, whose kernels want parameters of their float32 statistics' kind, and
    what is no floating-point number: a quantised base. Adapters stay float32 on a bfloat16 base:
    they cost little, and rounded their small updates would be lost.
    """
    if training.precision != "bf16":
        return
    for module in model.modules():
        if isinstance(module, _NormBase):
            continue
        for parameter in module.parameters(recurse=False):
            adapter = training.lora is not None and parameter.requires_grad
            if parameter.is_floating_point() and not adapter:
                parameter.data = parameter.data.to(torch.bfloat16)


def autocast(training: Training, device: torch.device) -> AbstractContextManager[object]:
    """The context for forward passes; does nothing unless the precision is mixed."""
    dtype = _MIXED.get(training.precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()


def grad_scaler(training: Training, device: torch.device) -> SharedGradScaler:
    """Loss scaling (Micikevicius et al. 2018), which only fp16 needs; disabled it is a no-op."""
    return SharedGradScaler(device.type, enabled=training.precision == "fp16-mixed")


class SharedGradScaler(torch.amp.GradScaler):
    """Skips a step on all ranks of the world, or on none.

    An overflow may be in one rank's part of the gradient alone. PyTorch's scaler would ask only
    the ranks of the first gradient's mesh; with several meshes, or pipeline stages, that leaves
    some ranks updated, others not, and the loss scales apart.
    """

    _skipped: torch.Tensor | None = None

    def skipped(self) -> int:
        """Steps skipped so far. Waits for the device, which counts them."""
        return 0 if self._skipped is None else int(self._skipped.item())

    def numbers(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, as JSON values. Waits for the device."""
        found: dict[str, Any] = {"skipped": self.skipped()}
        if self.is_enabled():
            found["loss_scale"] = self.get_scale()
            found["clean_steps"] = self._get_growth_tracker()
        return found

    def go_on_from(self, numbers: Mapping[str, Any]) -> None:
        """Put back what `numbers` gave; what is missing there was saved without a scaler."""
        self._skipped = torch.tensor(int(numbers.get("skipped", 0)))
        if self.is_enabled() and numbers.get("loss_scale") is not None:
            clean = numbers.get("clean_steps", 0)
            saved = {"scale": numbers["loss_scale"], "_growth_tracker": clean}
            self.load_state_dict(self.state_dict() | saved)

    def _unscale_grads_(
        self,
        optimizer: torch.optim.Optimizer,
        inv_scale: torch.Tensor,
        found_inf: torch.Tensor,
        allow_fp16: bool,  # noqa: ARG002 - gradients are never fp16 here
    ) -> dict[torch.device, torch.Tensor]:
        kinds: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = defaultdict(list)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    local = _local(parameter.grad)
                    kinds[local.device, local.dtype].append(local)
        for (device, _), grads in kinds.items():
            found = torch.zeros((), device=device)
            torch._amp_foreach_non_finite_check_and_unscale_(grads, found, inv_scale.to(device))
            found_inf += found.to(found_inf.device)
        if dist.is_initialized():
            dist.all_reduce(found_inf, op=dist.ReduceOp.MAX)
        overflows = (found_inf > 0).long()
        self._skipped = overflows if self._skipped is None else self._skipped + overflows
        return {found_inf.device: found_inf}


def _local(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
