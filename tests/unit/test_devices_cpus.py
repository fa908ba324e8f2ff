"""The cores that may be used, not those that exist."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.devices.cpus import cpu_count

MASK = len(os.sched_getaffinity(0))


def cgroup(tmp_path: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc = tmp_path / "cgroup"
    proc.write_text(line + "\n")
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return proc, tmp_path / "fs"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/user/job", {"user/job/cpu.max": "max 100000"}, MASK),
        ("0::/user/job", {"user/job/cpu.max": "100000 100000"}, 1),
        ("0::/user/job", {"user/job/cpu.max": "10000 100000"}, 1),
        ("0::/user/job", {"user/cpu.max": "50000 100000", "user/job/cpu.max": "max 100000"}, 1),
        ("0::/not/here", {"cpu.max": "100000 100000"}, 1),
        ("0::/", {}, MASK),
        ("0::/user/job", {"user/job/cpu.max": "99900000 100000"}, MASK),
        (
            "4:cpu,cpuacct:/job",
            {"cpu/job/cpu.cfs_quota_us": "90000", "cpu/job/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "4:cpu,cpuacct:/job",
            {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"},
            MASK,
        ),
        ("5:memory:/job", {"cpu/job/cpu.cfs_quota_us": "1", "cpu.max": "1 100000"}, MASK),
    ],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, line: str, files: dict[str, str], expected: int
) -> None:
    assert cpu_count(*cgroup(tmp_path, line, files)) == expected


def test_the_affinity_mask_counts() -> None:
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    try:
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, mask)
