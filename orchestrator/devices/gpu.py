"""What a GPU is to ptx. Pure data; memory in bytes."""

from __future__ import annotations

from dataclasses import dataclass

IDLE_SHARE = 0.05
"""Used share of a device's memory under which it counts as idle: drivers keep some for
themselves, and inside a container the processes of others are memory without a name."""


@dataclass(frozen=True)
class GpuProcess:
    pid: int
    user: str | None
    command: str | None
    memory: int | None
    """None where the driver does not say."""
    run_id: str | None
    """The ptx run that it belongs to, where its environment can be read."""
    graphics: bool = False
    """Draws rather than computes, as a desktop does."""


@dataclass(frozen=True)
class Device:
    """Something a rank can be given: a GPU, or a MIG instance of one."""

    uuid: str
    """As CUDA_VISIBLE_DEVICES takes it: GPU-... or MIG-..."""
    name: str
    memory_used: int
    memory_total: int
    processes: tuple[GpuProcess, ...] = ()

    @property
    def idle(self) -> bool:
        """Nobody computes on it. What a desktop draws with is no reason to wait."""
        if any(not process.graphics for process in self.processes):
            return False
        drawing = sum(process.memory or 0 for process in self.processes)
        return self.memory_used - drawing <= IDLE_SHARE * self.memory_total


@dataclass(frozen=True)
class MigInstance(Device):
    gpu_instance: int = 0
    compute_instance: int = 0


@dataclass(frozen=True)
class Gpu(Device):
    index: int = 0
    """As nvidia-smi counts: in PCI bus order."""
    utilisation: int | None = None
    """Percent of the last sample period; None where the driver does not say, as under MIG."""
    mig_enabled: bool = False
    """Only its instances can compute then, and there may be none."""
    instances: tuple[MigInstance, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.instances if self.mig_enabled else (self,)


@dataclass(frozen=True)
class Inventory:
    gpus: tuple[Gpu, ...]
    reason: str | None = None
    """Why no GPU can be seen, in one sentence; None where the driver answered."""
