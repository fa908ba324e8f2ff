"""Stands in for nvidia-ml-py where a test needs GPUs: no CI machine has one.

The file named by $NVML_STAND_IN describes them as JSON: a list of
`{"uuid", "name", "used", "total", "utilisation", "compute": [[pid, bytes]], "graphics": [...],
"mig": null | [{...}]}`; a text instead of the list is a driver that does not answer, null a GPU
that is lost. Names, results and errors are those of the real package.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE = 0, 1
nvmlMemory_v2 = 0x02000028

_gpus: list[dict[str, Any] | None] | None = None


class NVMLError(Exception):
    pass


class NVMLError_DriverNotLoaded(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_Uninitialized(NVMLError):
    pass


class NVMLError_Unknown(NVMLError):
    pass


def nvmlInit() -> None:
    global _gpus
    described = json.loads(Path(os.environ["NVML_STAND_IN"]).read_text())
    if isinstance(described, str):
        raise NVMLError_DriverNotLoaded(described)
    _gpus = described


def nvmlShutdown() -> None:
    global _gpus
    _gpus = None


def _all() -> list[dict[str, Any] | None]:
    if _gpus is None:
        raise NVMLError_Uninitialized("Uninitialized")
    return _gpus


def nvmlDeviceGetCount() -> int:
    return len(_all())


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    gpu = _all()[index]
    if gpu is None:
        raise NVMLError_GpuIsLost("GPU is lost")
    return gpu


def nvmlDeviceGetUUID(device: dict[str, Any]) -> str:
    return device["uuid"]


def nvmlDeviceGetName(device: dict[str, Any]) -> str:
    return device.get("name", "Stand-in")


def nvmlDeviceGetMemoryInfo(device: dict[str, Any], version: int | None = None) -> Any:
    if version is not None and device.get("old_driver"):
        raise NVMLError_NotSupported("Function Not Found")
    return SimpleNamespace(used=device.get("used", 0), total=device.get("total", 100 << 30))


def nvmlDeviceGetUtilizationRates(device: dict[str, Any]) -> Any:
    if device.get("utilisation") is None:
        raise NVMLError_NotSupported("Not Supported")
    return SimpleNamespace(gpu=device["utilisation"], memory=0)


def _running(device: dict[str, Any], kind: str) -> list[Any]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in device.get(kind, ())]


def nvmlDeviceGetComputeRunningProcesses(device: dict[str, Any]) -> list[Any]:
    return _running(device, "compute")


def nvmlDeviceGetGraphicsRunningProcesses(device: dict[str, Any]) -> list[Any]:
    if "graphics" not in device:
        raise NVMLError_NotSupported("Not Supported")
    return _running(device, "graphics")


def nvmlDeviceGetMigMode(device: dict[str, Any]) -> list[int]:
    if "mig" not in device:
        raise NVMLError_NotSupported("Not Supported")
    enabled = device["mig"] is not None
    return [NVML_DEVICE_MIG_ENABLE if enabled else NVML_DEVICE_MIG_DISABLE] * 2


def nvmlDeviceGetMaxMigDeviceCount(device: dict[str, Any]) -> int:
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(device: dict[str, Any], index: int) -> dict[str, Any]:
    # Slots need not be filled from the first on.
    if not 1 <= index <= len(device["mig"]):
        raise NVMLError_NotFound("Not Found")
    return device["mig"][index - 1]


def nvmlDeviceGetGpuInstanceId(device: dict[str, Any]) -> int:
    return device["gpu_instance"]


def nvmlDeviceGetComputeInstanceId(device: dict[str, Any]) -> int:
    return device["compute_instance"]
