"""What NVML says becomes an inventory, whatever it cannot say. A stand-in plays the driver: the
machines that test this have none."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.devices import nvml
from orchestrator.devices.gpu import GpuProcess

STAND_IN = Path(__file__).resolve().parent.parent / "stand_ins" / "pynvml.py"
GIB = 1 << 30


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the stand-in finds its GPUs."""
    description = tmp_path / "gpus.json"
    monkeypatch.setenv("NVML_STAND_IN", str(description))
    monkeypatch.setitem(sys.modules, "pynvml", load_stand_in())
    return description


def load_stand_in() -> Any:
    spec = importlib.util.spec_from_file_location("pynvml", STAND_IN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stand_in_and_the_real_package_both_have_every_name_that_is_used() -> None:
    import pynvml

    used = set(re.findall(r"\b(?:py)?nvml\.(\w+)", Path(nvml.__file__).read_text()))
    stand_in = load_stand_in()
    assert len(used) > 15
    assert {name for name in used if not hasattr(pynvml, name)} == set()
    assert {name for name in used if not hasattr(stand_in, name)} == set()


def test_a_gpu_with_its_processes(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTX_RUN_ID", "demo-0001")
    argv = [sys.executable, "-c", "print(flush=True);input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()  # /proc knows it by now
        driver.write_text(
            json.dumps(
                [
                    {
                        "uuid": "GPU-a",
                        "name": "H200",
                        "used": 7 * GIB,
                        "total": 140 * GIB,
                        "utilisation": 93,
                        "compute": [[child.pid, 5 * GIB], [os.getpid(), None]],
                        "graphics": [[child.pid, GIB], [4194999, GIB]],
                        "mig": None,
                    }
                ]
            )
        )
        found = nvml.inventory()
        child.communicate(b"\n")
    assert found.reason is None
    (gpu,) = found.gpus
    assert (gpu.index, gpu.uuid, gpu.name, gpu.utilisation) == (0, "GPU-a", "H200", 93)
    assert (gpu.memory_used, gpu.memory_total, gpu.mig_enabled) == (7 * GIB, 140 * GIB, False)
    first, second, third = gpu.processes
    assert (first.pid, first.memory, first.run_id) == (child.pid, 5 * GIB, "demo-0001")
    assert first.command == " ".join(argv)
    assert first.user == second.user and first.user
    assert (second.memory, second.graphics) == (None, False)
    assert third == GpuProcess(4194999, None, None, GIB, None, graphics=True)


def test_mig_instances_are_found_in_whatever_slots(driver: Path) -> None:
    parts = [
        {"uuid": "MIG-1", "gpu_instance": 1, "compute_instance": 0, "total": 70 * GIB},
        {"uuid": "MIG-2", "gpu_instance": 2, "compute_instance": 0, "total": 70 * GIB},
    ]
    driver.write_text(json.dumps([{"uuid": "GPU-a", "mig": parts}]))
    (gpu,) = nvml.inventory().gpus
    assert gpu.mig_enabled
    assert gpu.utilisation is None
    assert [(each.uuid, each.gpu_instance) for each in gpu.instances] == [
        ("MIG-1", 1),
        ("MIG-2", 2),
    ]
    assert gpu.devices == gpu.instances


def test_an_old_driver_without_the_newer_calls_is_enough(driver: Path) -> None:
    driver.write_text(json.dumps([{"uuid": "GPU-a", "used": 1, "total": 2, "old_driver": True}]))
    (gpu,) = nvml.inventory().gpus
    assert (gpu.memory_used, gpu.memory_total) == (1, 2)


def test_a_lost_gpu_does_not_hide_the_others(driver: Path) -> None:
    driver.write_text(json.dumps([None, {"uuid": "GPU-b"}]))
    assert [(gpu.index, gpu.uuid) for gpu in nvml.inventory().gpus] == [(1, "GPU-b")]


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ("Driver Not Loaded", "Driver Not Loaded"),
        ([], "reports no GPU"),
        ([None], "cannot read GPU 0: GPU is lost"),
    ],
)
def test_no_gpu_has_a_reason(driver: Path, described: object, reason: str) -> None:
    driver.write_text(json.dumps(described))
    found = nvml.inventory()
    assert found.gpus == ()
    assert reason in (found.reason or "")


def test_a_missing_package_is_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.inventory().reason == "The Python package nvidia-ml-py is not installed."
