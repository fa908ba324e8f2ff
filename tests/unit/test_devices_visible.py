"""CUDA_VISIBLE_DEVICES is read as CUDA, and so PyTorch, reads it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.devices.gpu import Gpu, GpuProcess, MigInstance
from orchestrator.devices.visible import visible

GIB = 1 << 30


def gpu(index: int, uuid: str, *instances: MigInstance, mig: bool = False) -> Gpu:
    return Gpu(uuid, "H200", 0, 140 * GIB, (), index, 0, mig or bool(instances), instances)


def instance(uuid: str, gpu_instance: int = 1) -> MigInstance:
    return MigInstance(uuid, "H200 MIG 3g", 0, 70 * GIB, (), gpu_instance, 0)


PLAIN = tuple(gpu(n, f"GPU-{'ab'[n // 2]}{n}00-11") for n in range(4))
SPLIT = (gpu(0, "GPU-c0", instance("MIG-10", 1), instance("MIG-20", 2)), gpu(1, "GPU-c1"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("none", []),
        ("2,0", [2, 0]),
        (" 1 , 3", [1, 3]),
        ("0,9,1", [0]),
        ("0,-1,1", [0]),
        ("0,,1", [0]),
        ("1,1", []),
        ("1x,2", [1, 2]),
        ("+1", [1]),
        ("GPU-a000-11,GPU-b300-11", [0, 3]),
        ("GPU-a0,GPU-b3", [0, 3]),
        ("GPU-a", []),
        ("GPU-a0,GPU-b,GPU-b3", [0]),
        ("GPU-a0,GPU-a000", []),
        ("GPU-a0,1", [0]),
        ("0,GPU-a1", [0]),
        ("GPU-zz", []),
        ("MIG-10", []),
    ],
)
def test_an_existing_setting_is_honoured_in_its_order(
    setting: str | None, expected: list[int]
) -> None:
    assert visible(PLAIN, setting) == tuple(PLAIN[n] for n in expected)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, ["MIG-10", "MIG-20", "GPU-c1"]),
        ("0", ["MIG-10"]),
        ("0,1", ["MIG-10", "GPU-c1"]),
        ("GPU-c0", ["MIG-10"]),
        ("MIG-20,MIG-10", ["MIG-20", "MIG-10"]),
        ("MIG-2", ["MIG-20"]),
        ("MIG-GPU-c0/2/0", ["MIG-20"]),
        ("MIG-GPU-c0/2/0,MIG-20", []),
        ("MIG-20,GPU-c1", ["MIG-20"]),
        ("MIG-30", []),
    ],
)
def test_mig_instances_go_by_their_names(setting: str | None, expected: list[str]) -> None:
    assert [device.uuid for device in visible(SPLIT, setting)] == expected


def test_a_gpu_in_mig_mode_without_instances_is_no_device() -> None:
    assert visible((gpu(0, "GPU-e", mig=True),), None) == ()
    assert visible((gpu(0, "GPU-e", mig=True),), "0") == ()


def test_a_lost_gpu_keeps_its_number() -> None:
    assert visible(PLAIN[1:], "0,1") == ()
    assert visible(PLAIN[1:], "1,2") == PLAIN[1:3]


@pytest.mark.slow
@settings(deadline=None)  # the first example imports torch
@given(
    st.one_of(
        st.lists(
            st.sampled_from(["0", "1", "3", "4", " 2", "-1", "", "x", "1y", "GPU-a0", "MIG-1"])
        ),
        st.lists(
            st.sampled_from(["GPU-a0", "GPU-a", "GPU-b2", "GPU-a000-11", "GPU-z", "MIG-1", "1"])
        ),
    ).map(",".join)
)
def test_pytorch_reads_every_setting_the_same(setting: str) -> None:
    import torch.cuda

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", setting)
        entries = torch.cuda._parse_visible_devices()
    if entries and isinstance(entries[0], str):
        if entries[0].startswith("MIG-"):
            return  # PyTorch leaves these to CUDA
        entries = torch.cuda._transform_uuid_to_ordinals(entries, [each.uuid for each in PLAIN])
    beyond = next((n for n, entry in enumerate(entries) if entry >= len(PLAIN)), len(entries))
    assert visible(PLAIN, setting) == tuple(PLAIN[entry] for entry in entries[:beyond])


def used(share: float, *processes: GpuProcess) -> Gpu:
    return Gpu("GPU-a", "H200", int(share * 100 * GIB), 100 * GIB, processes)


def process(memory: int, *, graphics: bool) -> GpuProcess:
    return GpuProcess(1, "ann", "x", memory, None, graphics)


def test_a_device_is_idle_until_somebody_computes_on_it_or_takes_its_memory() -> None:
    assert used(0.01).idle
    assert not used(0.5).idle
    assert not used(0.01, process(GIB, graphics=False)).idle


def test_a_desktop_does_not_make_a_device_busy() -> None:
    assert used(0.11, process(10 * GIB, graphics=True)).idle
    assert not used(0.5, process(10 * GIB, graphics=True)).idle
