"""Importing DeepSpeed so that it runs on the planned device and says only what matters."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType

from orchestrator.training.errors import NotSupported, PlanMismatch
from orchestrator.training.plan import TrainingPlan


def import_deepspeed(plan: TrainingPlan) -> ModuleType:
    """DeepSpeed, computing on what the plan says and not on what it finds.

    Raises NotSupported where it is not installed, cannot compile what it needs on a CPU, or has
    no fp16 there; PlanMismatch where it was imported before for another device.
    """
    wanted = "cuda" if plan.gpus_per_node else "cpu"
    # Read once, at the first import: a plan for CPUs may run where there is a GPU.
    os.environ.setdefault("DS_ACCELERATOR", wanted)
    if wanted == "cpu":
        check_compiler()
    try:
        import deepspeed
        from deepspeed.accelerator import get_accelerator
    except ImportError as error:
        raise NotSupported(
            f"strategy zero needs the package deepspeed, which cannot be imported: {error}",
            hint="pip install 'ptx[train]'",
        ) from error
    # DeepSpeed calls them at every step, and whoever reads the log can do nothing about it.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    accelerator = get_accelerator()
    if accelerator.device_name() != wanted:
        raise PlanMismatch(
            f"the plan computes on {wanted}, and DeepSpeed on {accelerator.device_name()} "
            f"(DS_ACCELERATOR={os.environ['DS_ACCELERATOR']})",
            hint="unset DS_ACCELERATOR",
        )
    if plan.training.precision == "fp16-mixed" and not accelerator.is_fp16_supported():
        raise NotSupported(
            f"training.precision is fp16-mixed, and DeepSpeed has no fp16 on this {wanted}",
            hint="set training.precision to bf16-mixed or fp32",
        )
    module: ModuleType = deepspeed
    return module


def check_compiler() -> None:
    """On a CPU DeepSpeed compiles how its ranks exchange, and wants both even for the cached one.

    Raises NotSupported naming what is missing.
    """
    beside = Path(sys.executable).parent  # where pip installs ninja, activated or not
    if shutil.which("ninja") is None and (beside / "ninja").is_file():
        os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{beside}"
    compiler = os.environ.get("CXX", "c++")
    commands = {f"the C++ compiler {compiler}": compiler.split()[0], "ninja": "ninja"}
    missing = [what for what, command in commands.items() if shutil.which(command) is None]
    if missing:
        raise NotSupported(
            "DeepSpeed compiles a C++ extension where ranks compute on a CPU, and "
            f"{' and '.join(missing)} cannot be found",
            hint="install g++ and ninja, name a compiler in CXX, or use `strategy: fsdp`",
        )
