"""The names of the elements of a job array."""

from __future__ import annotations

import pytest

from orchestrator.runs.array import Element, element_id, element_of, job_name
from orchestrator.runs.ids import is_run_id


@pytest.mark.parametrize("array", ["sweep-7f3kq9", "a.1-b-000000", "3-zzzzzz"])
@pytest.mark.parametrize("number", [0, 7, 999])
def test_an_element_is_a_run_and_knows_its_array(array: str, number: int) -> None:
    run_id = element_id(array, number)
    assert is_run_id(run_id)
    assert element_of(run_id) == Element(array, number)


@pytest.mark.parametrize("run_id", ["sweep-7f3kq9", "sweep.x-7f3kq9", "sweep.1-7f3k", ".1-7f3kq9"])
def test_another_run_is_no_element(run_id: str) -> None:
    assert element_of(run_id) is None


def test_slurm_knows_an_element_by_its_array_and_what_continues_it_by_its_own_name() -> None:
    assert job_name("sweep.1-7f3kq9", "1234_1") == "sweep-7f3kq9"
    assert job_name("sweep.1-7f3kq9", "1235") == "sweep.1-7f3kq9"
    assert job_name("sweep-7f3kq9", "1234") == "sweep-7f3kq9"
