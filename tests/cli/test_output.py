"""The small words of the command line."""

from __future__ import annotations

import pytest

from orchestrator.cli.options import seconds
from orchestrator.cli.output import duration, size, table
from orchestrator.errors import UserError


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (86400, "1d00h"),
        (90061, "1d01h"),
    ],
)
def test_durations_are_two_units(given: float, told: str) -> None:
    assert duration(given) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 30, "1.0 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_sizes_have_a_unit(given: int, told: str) -> None:
    assert size(given) == told


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("0.5s", 0.5), ("15m", 900), ("2h", 7200), ("1d", 86400)]
)
def test_a_time_may_have_a_unit(text: str, value: float) -> None:
    assert seconds(text, "--timeout") == value


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1w", "1 h", "1e3", "nan", "inf", "1m30s", "\u0661"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a time"):
        seconds(text, "--timeout")


def test_columns_are_aligned_and_nothing_trails() -> None:
    text = table(("A", "LONGER"), [("value", "x"), ("v", "")])
    assert text == "A      LONGER\nvalue  x\nv"
