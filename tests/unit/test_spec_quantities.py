"""Durations and sizes."""

from __future__ import annotations

import pytest

from orchestrator.spec.quantities import mebibytes, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", 90),
        ("90m", 5400),
        ("12h", 43200),
        ("2d", 172800),
        ("12 h", 43200),
        ("12:30:00", 45000),
        ("12:30", 45000),
        ("1-12:00:00", 129600),
        ("0:00:01", 1),
        ("366d", 366 * 86400),
    ],
)
def test_a_duration_in_seconds(text: str, value: int) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "12", "12x", "h", "-1h", "1:60", "1:00:60", "0s", "00:00:00", "12h\n", "367d", "٣h"],
)  # fmt: skip
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("64GB", 65536), ("64G", 65536), ("64 GiB", 65536), ("512M", 512), ("1T", 1048576), ("1K", 1)],
)
def test_a_size_in_mebibytes(text: str, value: int) -> None:
    assert mebibytes(text) == value


@pytest.mark.parametrize("text", ["", "64", "64gb", "0GB", "-1G", "1.5GB", "64GB\n", "lots"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        mebibytes(text)
