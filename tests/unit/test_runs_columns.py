"""The index's rows as columns of JSON and back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runs.columns import pack, unpack

CELLS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**19), 10**19),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["completed", "failed", "é", '"', "\ud800"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=1),
)
ROWS = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[CELLS] * width), max_size=40))


def exactly(rows: Any) -> str:
    """1, 1.0 and True are equal, and not the same."""
    return repr([tuple(row) for row in rows])


@given(ROWS)
def test_rows_come_back_as_they_were(rows: list[tuple[Any, ...]]) -> None:
    packed = json.loads(json.dumps(pack(rows)))
    assert exactly(unpack(packed)) == exactly(rows)


def test_what_is_said_again_and_again_is_kept_once() -> None:
    rows = [("a long sentence that many rows say", number) for number in range(1000)]
    packed = json.dumps(pack(rows))
    assert packed.count("sentence") == 1
    assert exactly(unpack(json.loads(packed))) == exactly(rows)
