"""Stands in for nvidia-ml-py where a test needs GPUs: no CI machine has one.

The file named by $NVML_STAND_IN describes them as JSON: a list of
`{"uuid", "name", "used", "total", "utilisation", "compute": [[pid, bytes]], "graphics": [...],
"mig": null | [{...}], "power": watts, "temperature", "ecc", "clocks": mask, "old_driver",
"xids": [...], "hangs": true}`; a text instead of the list is a driver that does not answer, null a
GPU that is lost. Names, results and errors are those of the real package.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE = 0, 1
nvmlMemory_v2 = 0x02000028
NVML_TEMPERATURE_GPU = 0
NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
NVML_VOLATILE_ECC = 0
nvmlEventTypeXidCriticalError = 8
nvmlClocksThrottleReasonGpuIdle = 1
nvmlClocksThrottleReasonSwPowerCap = 4
nvmlClocksThrottleReasonHwSlowdown = 8
nvmlClocksThrottleReasonSyncBoost = 16
nvmlClocksThrottleReasonSwThermalSlowdown = 32
nvmlClocksThrottleReasonHwThermalSlowdown = 64
nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128

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


class NVMLError_Timeout(NVMLError):
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


def nvmlDeviceGetHandleByUUID(uuid: str) -> dict[str, Any]:
    for gpu in _all():
        for device in (gpu, *((gpu or {}).get("mig") or ())):
            if device is not None and device["uuid"] == uuid:
                return device
    raise NVMLError_NotFound("Not Found")


def nvmlDeviceGetIndex(device: dict[str, Any]) -> int:
    return _all().index(device)


def _fact(device: dict[str, Any], name: str) -> Any:
    if device.get(name) is None:
        raise NVMLError_NotSupported("Not Supported")
    return device[name]


def nvmlDeviceGetPowerUsage(device: dict[str, Any]) -> int:
    return int(1000 * _fact(device, "power"))


def nvmlDeviceGetTemperature(device: dict[str, Any], sensor: int) -> int:
    return int(_fact(device, "temperature"))


def nvmlDeviceGetTotalEccErrors(device: dict[str, Any], kind: int, counter: int) -> int:
    return int(_fact(device, "ecc"))


def nvmlDeviceGetCurrentClocksThrottleReasons(device: dict[str, Any]) -> int:
    return int(_fact(device, "clocks"))


def nvmlDeviceGetCurrentClocksEventReasons(device: dict[str, Any]) -> int:
    if device.get("old_driver"):
        raise NVMLError_NotSupported("Function Not Found")
    return int(_fact(device, "clocks"))


def nvmlEventSetCreate() -> list[dict[str, Any]]:
    return []


def nvmlDeviceRegisterEvents(
    device: dict[str, Any], types: int, events: list[dict[str, Any]]
) -> None:
    if types != nvmlEventTypeXidCriticalError or "xids" not in device:
        raise NVMLError_NotSupported("Not Supported")
    events.append(device)


def nvmlEventSetWait_v2(events: list[dict[str, Any]], timeoutms: int) -> Any:
    for device in events:
        if device["xids"]:
            xid = device["xids"].pop(0)
            kind = nvmlEventTypeXidCriticalError
            return SimpleNamespace(device=device, eventType=kind, eventData=xid)
    raise NVMLError_Timeout("Timeout")


def nvmlDeviceGetUtilizationRates(device: dict[str, Any]) -> Any:
    if device.get("hangs"):
        time.sleep(1e6)
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
