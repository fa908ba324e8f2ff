"""The GPUs of this machine as NVML reports them: the only code that imports pynvml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from orchestrator.devices import owner
from orchestrator.devices.gpu import Gpu, GpuProcess, Inventory, MigInstance


def inventory() -> Inventory:
    """All GPUs of this machine, whatever CUDA_VISIBLE_DEVICES says.

    Never raises for a machine without pynvml, driver or GPU: `reason` says which it is.
    NVML is shut down again, so that no driver file stays open.
    """
    try:
        import pynvml
    except ImportError:
        return Inventory((), "The Python package nvidia-ml-py is not installed.")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Inventory((), f"The NVIDIA driver cannot be asked: {error}.")
    try:
        return _list(pynvml)
    except pynvml.NVMLError as error:
        return Inventory((), f"The NVIDIA driver cannot list its GPUs: {error}.")
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _list(nvml: Any) -> Inventory:
    """A GPU that has fallen off the bus is left out: the others still work."""
    gpus: list[Gpu] = []
    reason = "The NVIDIA driver reports no GPU."
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus.append(_gpu(nvml, index))
        except nvml.NVMLError as error:
            reason = f"The NVIDIA driver cannot read GPU {index}: {error}."
    return Inventory(tuple(gpus), None if gpus else reason)


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    used, total = _memory(nvml, handle)
    rates = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    mode = _optional(nvml, nvml.nvmlDeviceGetMigMode, handle)
    mig_enabled = mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE
    return Gpu(
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_used=used,
        memory_total=total,
        processes=_processes(nvml, handle),
        index=index,
        utilisation=rates.gpu if rates is not None else None,
        mig_enabled=mig_enabled,
        instances=tuple(_instances(nvml, handle)) if mig_enabled else (),
    )


def _instances(nvml: Any, gpu: Any) -> Iterator[MigInstance]:
    for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot)
        except nvml.NVMLError_NotFound:
            continue  # this slot is empty
        used, total = _memory(nvml, handle)
        yield MigInstance(
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            name=_text(nvml.nvmlDeviceGetName(handle)),
            memory_used=used,
            memory_total=total,
            processes=_processes(nvml, handle),
            gpu_instance=nvml.nvmlDeviceGetGpuInstanceId(handle),
            compute_instance=nvml.nvmlDeviceGetComputeInstanceId(handle),
        )


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """Used and total. Version 2 leaves out what the driver itself keeps; old drivers lack it.

    A GPU that shares the host's memory, as on a DGX Spark, reports none of its own.
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:
        memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return (memory.used, memory.total) if memory is not None else (0, 0)


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    computing = _optional(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    drawing = _optional(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or ()
    seen = {process.pid: _process(process) for process in computing}
    for process in drawing:
        seen.setdefault(process.pid, _process(process, graphics=True))
    return tuple(seen.values())


def _process(process: Any, *, graphics: bool = False) -> GpuProcess:
    return GpuProcess(
        pid=process.pid,
        user=owner.user(process.pid),
        command=owner.command(process.pid),
        memory=process.usedGpuMemory,
        run_id=owner.run_id(process.pid),
        graphics=graphics,
    )


def _optional(nvml: Any, query: Callable[[Any], Any], handle: Any) -> Any:
    """What not every device answers: None then."""
    try:
        return query(handle)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
