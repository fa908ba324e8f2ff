"""Real runs that do well and sound like trouble, and the same ones when they end in silence."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.ptx import Ptx
from support.why_healthy import HEALTHY, IN_TESTS, SILENT_IN_TESTS
from support.why_provoked import ask_healthy

pytestmark = pytest.mark.slow

CHOSEN = [(one, False) for one in HEALTHY if one.name in IN_TESTS]
CHOSEN += [(one, True) for one in HEALTHY if one.name in SILENT_IN_TESTS]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """`ptx why --json` of each, by name; `NAME-silent` where rank 1 leaves with 3 at the end."""
    folder = tmp_path_factory.mktemp("healthy")
    ptx = Ptx(folder / "runs", {"XDG_STATE_HOME": str(folder / "state")})

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(ask_healthy, ptx, folder, one, silent=silent) for one, silent in CHOSEN]
        yield dict(job.result() for job in jobs)


@pytest.mark.parametrize("name", IN_TESTS)
def test_no_cause_is_made_of_what_a_good_run_says(
    name: str, told: dict[str, dict[str, Any]]
) -> None:
    verdict = told[name]
    assert (verdict["verdict"], verdict["rule"], verdict["cause"]) == ("completed", None, None)
    assert (verdict["findings"], verdict["evidence"], verdict["first"]) == ([], [], None)


@pytest.mark.parametrize("name", SILENT_IN_TESTS)
def test_what_was_said_before_is_no_cause_of_an_end_in_silence(
    name: str, told: dict[str, dict[str, Any]]
) -> None:
    verdict = told[f"{name}-silent"]
    assert (verdict["class"], verdict["first"]["rank"], verdict["rule"]) == ("failed", 1, None)
