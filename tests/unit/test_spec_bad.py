"""Every bad spec of the corpus is refused at the right place, in the words of expected.txt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from bad_spec_cases import FOLDER, BadSpec, bad_specs, make_folder

from orchestrator.spec.diagnostics import SpecError
from orchestrator.spec.loader import load

CASES = bad_specs()


def refusal(case: BadSpec, folder: Path) -> SpecError:
    path = folder / "job.yaml"
    path.write_text(case.text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(path)
    return caught.value


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_spec_is_refused_at_its_line_and_column(case: BadSpec, tmp_path: Path) -> None:
    error = refusal(case, make_folder(tmp_path / "specs"))
    found = [(f"{one.line}:{one.column}", one.code) for one in error.diagnostics]
    assert found == case.expected
    assert error.exit_code == 2
    for one in error.diagnostics:
        lines = case.text.split("\n")
        assert one.source_line == lines[(one.line or 0) - 1]


def test_the_words_of_every_refusal_are_the_reviewed_ones(tmp_path: Path) -> None:
    """After a change, read expected.txt as a person would: PTX_UPDATE_GOLDEN=1 rewrites it."""
    folder = make_folder(tmp_path / "specs")
    blocks = []
    for case in CASES:
        text = refusal(case, folder).text().replace(str(folder) + "/", "")
        blocks.append(f"=== {case.name}\n{text.replace(str(folder), 'FOLDER')}\n")
    words = "\n".join(blocks)
    golden = FOLDER / "expected.txt"
    if os.environ.get("PTX_UPDATE_GOLDEN"):
        golden.write_text(words, encoding="utf-8")
    assert words == golden.read_text(encoding="utf-8")
    assert "pydantic" not in words
    assert "Input should" not in words


def test_the_python_parser_finds_the_same_errors_as_the_c_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyYAML comes without its C parser on some platforms."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    folder = make_folder(tmp_path / "specs")
    for case in CASES:
        found = [(one.line, one.code) for one in refusal(case, folder).diagnostics]
        expected = [(int(place.split(":")[0]), code) for place, code in case.expected]
        assert found == expected, case.name
