"""The run's GPUs on this node as NVML reports them. pynvml lies beside the agent in agent.pyz."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.agent.devices import device_list

_THROTTLE = (
    ("sw_power_cap", "SwPowerCap"),
    ("hw_slowdown", "HwSlowdown"),
    ("sync_boost", "SyncBoost"),
    ("sw_thermal", "SwThermalSlowdown"),
    ("hw_thermal", "HwThermalSlowdown"),
    ("hw_power_brake", "HwPowerBrakeSlowdown"),
)
"""Ours for NVML's reasons to clock lower. Left out: idle, and clocks that somebody has set."""
_XIDS = 64
"""Events taken at a sample; a GPU that is dying sends hundreds."""


class Gpus:
    """`devices`: as CUDA_VISIBLE_DEVICES names them, in the order of local ranks; "": none."""

    def __init__(self, devices: str) -> None:
        self._names = device_list(devices)
        self._handles: list[Any] = []
        self._uuids: list[str | None] = []
        self._xids: dict[str, int] = {}
        self._events: Any = None
        self._nvml: Any = _open() if self._names else None
        if self._nvml is not None:
            self._find()
            self._listen()

    def sample(self, local: Mapping[int, int]) -> list[dict[str, Any]]:
        """One object a device, in the order of local ranks; `local`: rank to local rank."""
        self._take_xids()
        found = []
        for place in range(len(self._handles)):
            one = self._device(place)
            ranks = sorted(rank for rank, number in local.items() if number == place)
            found.append({**one, "ranks": ranks} if ranks else one)
        return found

    def _find(self) -> None:
        """A device that cannot be had (lost, or hidden) keeps its place, with nothing known."""
        nvml = self._nvml
        for name in self._names:
            handle = self._try(self._handle, name)
            uuid = None if handle is None else self._try(nvml.nvmlDeviceGetUUID, handle)
            self._handles.append(handle)
            self._uuids.append(uuid.decode() if isinstance(uuid, bytes) else uuid)

    def _handle(self, name: str) -> Any:
        nvml = self._nvml
        if name.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(name))
        if not name.startswith("GPU-"):
            return nvml.nvmlDeviceGetHandleByUUID(name)
        for index in range(nvml.nvmlDeviceGetCount()):  # names may be cut short
            handle = self._try(nvml.nvmlDeviceGetHandleByIndex, index)
            uuid = None if handle is None else nvml.nvmlDeviceGetUUID(handle)
            uuid = uuid.decode() if isinstance(uuid, bytes) else uuid
            if uuid is not None and uuid.startswith(name):
                return handle
        return None

    def _device(self, place: int) -> dict[str, Any]:
        nvml, handle, uuid = self._nvml, self._handles[place], self._uuids[place]
        one: dict[str, Any] = {"index": place, "uuid": uuid}
        if handle is None:
            return {**one, **dict.fromkeys(_FACTS), "throttle": [], "xid": None}
        rates = self._try(nvml.nvmlDeviceGetUtilizationRates, handle)
        used, total = self._memory(handle)
        power = self._try(nvml.nvmlDeviceGetPowerUsage, handle)
        index = self._try(nvml.nvmlDeviceGetIndex, handle)
        return {
            "index": place if index is None else index,
            "uuid": uuid,
            "util": None if rates is None else rates.gpu,
            "memory_used": used,
            "memory_total": total,
            "power": None if power is None else round(power / 1000, 1),
            "temperature": self._try(
                nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
            ),
            "ecc": self._try(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            "throttle": self._throttle(handle),
            "xid": self._xids.get(uuid or ""),
        }

    def _memory(self, handle: Any) -> tuple[int | None, int | None]:
        """Version 2 leaves out what the driver itself keeps; old drivers lack it."""
        query, newer = self._nvml.nvmlDeviceGetMemoryInfo, self._nvml.nvmlMemory_v2
        memory = self._try(query, handle, newer) or self._try(query, handle)
        return (None, None) if memory is None else (memory.used, memory.total)

    def _throttle(self, handle: Any) -> list[str]:
        nvml = self._nvml
        # The newer name for the same; drivers before R535 know the older one alone.
        mask = self._try(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
        if mask is None:
            mask = self._try(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        return [
            ours
            for ours, theirs in _THROTTLE
            if (mask or 0) & int(getattr(nvml, "nvmlClocksThrottleReason" + theirs))
        ]

    def _listen(self) -> None:
        """Have Xid errors reported, where the driver and the device can."""
        nvml = self._nvml
        self._events = self._try(nvml.nvmlEventSetCreate)
        if self._events is not None:
            for handle in self._handles:
                if handle is not None:
                    kind = nvml.nvmlEventTypeXidCriticalError
                    self._try(nvml.nvmlDeviceRegisterEvents, handle, kind, self._events)

    def _take_xids(self) -> None:
        if self._events is None:
            return
        nvml = self._nvml
        for _ in range(_XIDS):
            data = self._try(nvml.nvmlEventSetWait_v2, self._events, 0)
            if data is None:  # none within no time
                return
            uuid = self._try(nvml.nvmlDeviceGetUUID, data.device)
            uuid = uuid.decode() if isinstance(uuid, bytes) else uuid
            if uuid is not None and data.eventType & nvml.nvmlEventTypeXidCriticalError:
                self._xids[uuid] = int(data.eventData)

    def _try(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """What not every device and driver answers: None then."""
        try:
            return query(*arguments)
        except self._nvml.NVMLError:
            return None


_FACTS = ("util", "memory_used", "memory_total", "power", "temperature", "ecc")


def _open() -> Any:
    """pynvml with the driver opened; None where there is none."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError):
        return None
    return pynvml
