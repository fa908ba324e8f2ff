"""`ptx gpus`: the machine without GPUs, and with a stand-in for the driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.schedulers.lease import Holder, Leases

TESTS = Path(__file__).resolve().parent.parent
RUN = "import sys; from orchestrator.cli.main import main; sys.exit(main(sys.argv[1:]))"
GIB = 1 << 30
GPUS = [
    {"uuid": "GPU-a", "name": "H200", "used": GIB, "total": 140 * GIB, "utilisation": 3},
    {"uuid": "GPU-b", "name": "H200", "used": 99 * GIB, "total": 140 * GIB, "utilisation": 97},
    {"uuid": "GPU-c", "name": "H200", "used": 0, "total": 140 * GIB, "utilisation": 0},
    {
        "uuid": "GPU-d",
        "name": "H200",
        "total": 140 * GIB,
        "mig": [{"uuid": "MIG-1", "name": "3g", "gpu_instance": 1, "compute_instance": 0}],
    },
]


def ptx(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env=os.environ | environment,
        cwd=TESTS.parent,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def driver(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with these GPUs."""
    description = tmp_path / "gpus.json"
    busy = {**GPUS[1], "compute": [[os.getpid(), 98 * GIB]]}
    description.write_text(json.dumps([GPUS[0], busy, *GPUS[2:]]))
    return {
        "NVML_STAND_IN": str(description),
        "PYTHONPATH": f"{TESTS / 'stand_ins'}:{TESTS.parent}",
        "PTX_LEASES": str(tmp_path / "leases"),
    }


def test_a_machine_without_gpus_is_no_error(driver: dict[str, str]) -> None:
    Path(driver["NVML_STAND_IN"]).write_text('"Driver Not Loaded"')
    shown = ptx("gpus", **driver)
    assert shown.returncode == 0
    assert shown.stdout.split()[0] == "GPU" and len(shown.stdout.splitlines()) == 1
    assert "Driver Not Loaded" in shown.stderr
    told: dict[str, Any] = json.loads(ptx("gpus", "--json", **driver).stdout)
    assert (told["v"], told["gpus"]) == (1, []) and "Driver Not Loaded" in told["reason"]


def test_the_table_says_who_holds_which(driver: dict[str, str]) -> None:
    with Leases(Path(driver["PTX_LEASES"])) as leases, leases.queue(["GPU-c", "MIG-1"]) as ticket:
        lease = leases.acquire(ticket, ["GPU-c", "MIG-1"], 2, Holder("demo-0001", 4711))
        assert lease is not None
        shown = ptx("gpus", **driver)
        told = json.loads(ptx("gpus", "--json", **driver).stdout)
    assert shown.returncode == 0
    rows = [line.split() for line in shown.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "3.0"]
    assert "free" in rows[0] and "3%" in rows[0]
    assert "busy" in rows[1] and str(os.getpid()) in rows[1]
    assert "busy" in rows[2] and "demo-0001" in rows[2]
    assert "busy" in rows[4] and "demo-0001" in rows[4]
    assert [gpu["free"] for gpu in told["gpus"]] == [True, False, False, False]
    assert told["gpus"][2]["lease"] == {"run_id": "demo-0001", "pid": 4711}
    assert told["gpus"][1]["processes"][0]["memory_bytes"] == 98 * GIB
    assert told["gpus"][3]["mig"][0]["lease"] == {"run_id": "demo-0001", "pid": 4711}
    assert told["reason"] is None


def test_a_gpu_whose_holder_could_not_write_its_name_is_held_all_the_same(
    driver: dict[str, str],
) -> None:
    folder = Path(driver["PTX_LEASES"])
    with Leases(folder) as leases, leases.queue(["GPU-c"]) as ticket:
        lease = leases.acquire(ticket, ["GPU-c"], 1, Holder("demo-0001", 4711))
        assert lease is not None
        (folder / "device-GPU-c").write_text("")  # as a full disk leaves it
        shown = ptx("gpus", **driver)
        told = json.loads(ptx("gpus", "--json", **driver).stdout)
        lease.release()
    (row,) = [line for line in shown.stdout.splitlines() if line.split()[0] == "2"]
    assert "busy" in row and "a run that found no room on the disk to say which" in row
    assert (told["gpus"][2]["free"], told["gpus"][2]["lease"]["run_id"]) == (False, "?")


def test_a_lease_folder_that_others_can_enter_is_told_not_trusted(driver: dict[str, str]) -> None:
    folder = Path(driver["PTX_LEASES"])
    folder.mkdir()
    folder.chmod(0o777)
    shown = ptx("gpus", "--json", **driver)
    assert shown.returncode == 2
    assert "not yours alone" in json.loads(shown.stdout)["error"]["message"]
