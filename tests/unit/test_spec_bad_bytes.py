"""Files that are no text, too large, too deep, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.diagnostics import Diagnostic, SpecError
from orchestrator.spec.loader import load
from orchestrator.spec.source import MAX_BYTES

GOOD = b"name: a\nentrypoint: {module: train}\n"


def refusal(path: Path) -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        load(path)
    assert len(caught.value.diagnostics) == 1
    return caught.value.diagnostics[0]


@pytest.mark.parametrize(
    ("data", "place", "code", "words"),
    [
        (b"", (1, 1), "empty", "the file holds nothing"),
        (b"\n\n  \n", (1, 1), "empty", "the file holds nothing"),
        (b"---\n", (1, 1), "empty", "the file holds nothing"),
        (GOOD + b"python: a\0b\n", (3, 10), "control-character", "a NUL byte"),
        (GOOD + b"python: a\x07b\n", (3, 10), "control-character", "U+0007"),
        (GOOD + b"python: \xc2\x9bm\n", (3, 9), "control-character", "U+009B"),
        (GOOD + b"python: caf\xe9\n", (3, 12), "not-utf8", "0xE9 at offset 47"),
        (b"\xe9", (1, 1), "not-utf8", "0xE9 at offset 0"),
        (b"name: a\r\npython: caf\xe9\r\n", (2, 12), "not-utf8", "0xE9"),
        (GOOD.decode().encode("utf-16"), (None, 1), "not-utf8", "UTF-16"),
        (b"[" * 100_000, (1, 51), "too-deep", "more than 50 levels"),
        (b"a: " + b"[" * 500_000 + b"]" * 500_000, (1, 53), "too-deep", "more than 50"),
        (b"a: " + b"{a: " * 100_000, (1, 200), "too-deep", "more than 50"),
        (b"a: &x " + b"[" * 40 + b"]" * 40 + b"\nb: " + b"[" * 20 + b"*x", (2, 24), "too-deep", ""),
        (b"a: [" + b"1," * 20_000 + b"]", (1, 19_999), "too-many-values", "10,000"),
        (b"# " + b"x" * MAX_BYTES, (None, 1), "file-too-large", "1 MiB"),
        (b"x" * (20 << 20), (None, 1), "file-too-large", "1 MiB"),
        ("näme: \U0001f600 [".encode(), (1, 1), "unknown-key", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bytes_that_are_no_spec_are_refused_at_their_place(
    data: bytes, place: tuple[int | None, int], code: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        load(path)
    matching = [
        one
        for one in caught.value.diagnostics
        if one.code == code and words in one.message and (one.line, one.column) == place
    ]
    assert matching, caught.value.text()[:2000]


def test_a_byte_order_mark_is_no_error_and_moves_no_column(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD)
    assert load(path).spec.name == "a"
    path.write_bytes(b"\xef\xbb\xbfname: 1\nentrypoint: {module: train}\n")
    assert (refusal(path).line, refusal(path).column) == (1, 7)


def test_several_control_characters_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"name: \x01\nentrypoint: \x02\n")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert [(one.line, one.column) for one in caught.value.diagnostics] == [(1, 7), (2, 13)]


def test_a_missing_file_is_met_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_bytes(GOOD)
    found = refusal(tmp_path / "quikstart.yaml")
    assert found.code == "file-missing"
    assert found.line is None
    assert found.suggestion == f"did you mean {tmp_path / 'quickstart.yaml'}?"


def test_a_file_in_a_missing_folder_is_said_to_be_there(tmp_path: Path) -> None:
    assert "does not exist either" in str(refusal(tmp_path / "none" / "job.yaml").suggestion)


def test_a_folder_is_refused_with_a_file_of_it(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(GOOD)
    found = refusal(tmp_path)
    assert found.code == "file-is-folder"
    assert "job.yaml" in str(found.suggestion)


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(GOOD)
    assert refusal(tmp_path / "job.yaml" / "x").code == "file-unreadable"


def test_an_unreadable_file_is_refused() -> None:
    """Nobody can read this one from its start, not even root."""
    assert refusal(Path("/proc/self/mem")).code == "file-unreadable"


def test_a_path_with_a_nul_or_a_strange_name_is_refused(tmp_path: Path) -> None:
    assert refusal(Path("a\0b.yaml")).code == "file-unreadable"
    assert "\x1b" not in refusal(tmp_path / "\x1b[2J\udcff.yaml").text()


def test_thousands_of_errors_are_cut_to_a_hundred(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("".join(f"nodez{number}: 1\n" for number in range(4_900)))
    with pytest.raises(SpecError) as caught:
        load(path)
    assert len(caught.value.diagnostics) == 100
    assert caught.value.diagnostics[0].line == 1


def test_a_key_of_a_megabyte_is_answered_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b'? "' + b"k" * 900_000 + b'"\n: 1\n' + GOOD)
    text = refusal(path).text()
    assert len(text) < 1_000
    assert "…" in text
