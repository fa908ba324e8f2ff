"""Diagnostics as text and JSON."""

from __future__ import annotations

import json

from orchestrator.spec.diagnostics import Diagnostic, SpecError


def excerpt(line: str, column: int) -> list[str]:
    return Diagnostic("f", 1, column, "c", "m", None, line).text().split("\n")[1:]


def test_the_caret_stands_below_its_character() -> None:
    assert excerpt("nodes: x", 8) == ["  | nodes: x", "  |        ^"]
    assert excerpt("\tx: y", 5) == ["  |  x: y", "  |     ^"]
    assert excerpt("\U0001f600\U0001f600 x", 4) == ["  | \U0001f600\U0001f600 x", "  |      ^"]


def test_a_long_line_is_cut_around_the_caret() -> None:
    line, caret = excerpt("a" * 500 + "X" + "b" * 500, 501)
    assert len(line) < 120
    assert line[caret.index("^")] == "X"
    assert line.startswith("  | …")
    assert line.endswith("…")


def test_nothing_of_a_spec_reaches_the_terminal_unescaped() -> None:
    hostile = "\x1b[2J\x9b\r\n\u202e"
    text = Diagnostic(f"f{hostile}", 1, 1, "c", hostile, hostile, hostile).text()
    assert not {"\x1b", "\x9b", "\r", "\u202e"}.intersection(text)
    assert text.count("\n") == 3


def test_json_holds_every_field_and_survives_bad_file_names() -> None:
    one = Diagnostic("f\udcff.yaml", None, 1, "code", "message", None)
    assert json.loads(json.dumps(one.to_json())) == {
        "file": "f\\udcff.yaml",
        "line": None,
        "column": 1,
        "severity": "error",
        "code": "code",
        "message": "message",
        "suggestion": None,
        "source_line": "",
    }
    json.dumps(one.to_json(), ensure_ascii=False).encode("utf-8")


def test_the_error_counts_and_keeps_its_diagnostics() -> None:
    one = Diagnostic("job.yaml", 1, 1, "c", "m")
    assert SpecError([one]).message == "job.yaml: 1 error in the spec"
    assert SpecError([one, one]).message == "job.yaml: 2 errors in the spec"
    assert SpecError([one]).exit_code == 2
