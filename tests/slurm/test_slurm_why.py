"""`ptx why` on failures over two nodes of a real SLURM, and on what only SLURM can bring about.

A few of them here; all: benchmarks/soak/why_corpus.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from cluster import Cluster
from support.ptx import Ptx, exit_records
from support.why_provoked import Told, submit, told
from support.why_slurm_cases import SLURM_CASES, SLURM_IN_TESTS

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Told]]:
    """Name of the case -> what was said of it."""
    if os.environ.get("PTX_TEST_SLURM") != "1":
        pytest.skip("needs --slurm: a real SLURM")
    cluster: Cluster = request.getfixturevalue("_session_cluster")
    folder = tmp_path_factory.mktemp("slurm-why")
    environment = {
        "XDG_STATE_HOME": str(folder / "state"),
        "SLURM_CONF": str(cluster.conf),
    }
    ptx = Ptx(folder / "runs", environment)
    chosen = [case for case in SLURM_CASES if case.name in SLURM_IN_TESTS]
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        jobs = {
            case.name: pool.submit(
                lambda case=case: told(case, submit(case, folder / case.name, ptx, stack), ptx)
            )
            for case in chosen
        }
        yield {name: job.result() for name, job in jobs.items()}


@pytest.mark.parametrize("name", SLURM_IN_TESTS)
def test_rank_class_and_cause_are_named(name: str, verdicts: dict[str, Told]) -> None:
    verdict = verdicts[name]
    assert verdict.rank_right, verdict
    assert verdict.state_right, verdict
    assert verdict.rule_right, verdict


def test_all_nodes_took_their_stacks_before_the_first_rank_was_gone(
    verdicts: dict[str, Told],
) -> None:
    hang = verdicts["slurm-hang-torchrun"]
    assert {record["signal"] for record in exit_records(hang.run)} == {6}, hang
    assert [(row["ranks"], row["call"]) for row in hang.verdict["stands"]] == [
        ([3], "<module>"),
        ([0, 1, 2], "all_reduce"),
    ]
