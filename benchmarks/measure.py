"""What benchmarks share: the machine, ptx as where it is installed, how sure the figures are."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Processor, memory, GPU, load before the first measurement, and versions of `packages`."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": _gpu(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in packages},
    }


def installed(folder: Path) -> dict[str, str]:
    """The environment of a ptx whose modules are compiled, as where it was installed: else a shell
    with PYTHONDONTWRITEBYTECODE compiles a checkout's anew at each start. Kept in `folder`."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def machine_line(found: dict[str, Any]) -> str:
    """One line for the table's head."""
    versions = found["versions"].items()
    parts = [
        f"{found['cores']} cores ({found['processor']})",
        f"{found['memory_gib']} GiB",
        *([found["gpu"]] if found["gpu"] else []),
        *(f"{name} {version}" if version else f"no {name}" for name, version in versions),
        f"load {found['load']} before",
        found["date"],
    ]
    return ", ".join(parts)


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return values[0] if values else None


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def median_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Median with the percentile bootstrap's interval (Efron 1979), always the same one."""
    generator = random.Random(0)  # noqa: S311 - statistics, not secrets
    medians = sorted(
        statistics.median(generator.choices(values, k=len(values))) for _ in range(resamples)
    )
    cut = round(resamples * (1 - confidence) / 2)
    return statistics.median(values), medians[cut], medians[-1 - cut]


def save(table: str, figures: dict[str, Any], stem: Path) -> None:
    """`stem`.txt for people, `stem`.json for programs."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".txt").write_text(table + "\n")
    stem.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    print(f"kept in {stem}.txt and .json")
