"""Which hosts a job of SLURM's has, and which it avoids."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.host_lists import HOST_LISTS
from support.slurm_site import SILENT, Site

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.hosts import expand


@pytest.mark.parametrize("text", HOST_LISTS)
def test_a_list_of_hosts_is_told_apart_in_slurms_order(text: str) -> None:
    assert expand(text) == HOST_LISTS[text].split()


def test_the_nodes_of_a_job_are_known_while_scontrol_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that took no answer for no nodes would give a healthy allocation back."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    Site(tmp_path).command("scontrol", SILENT)
    allocation = Allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[09-10],x"})
    assert allocation.nodes() == ["n09", "n10", "x"]


def test_the_hosts_that_a_job_avoids_are_none_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    site = Site(tmp_path)
    allocation = Allocation({"SLURM_JOB_ID": "7"})
    assert allocation.excluded() == []
    site.command("scontrol", 'echo "JobId=7 ExcNodeList=n[1-2],x"')
    assert allocation.excluded() == ["n1", "n2", "x"]
    site.falls_silent()
    assert allocation.excluded() is None
