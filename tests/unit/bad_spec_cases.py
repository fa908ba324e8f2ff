"""The corpus of bad specs: its text, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "bad_specs"


@dataclass(frozen=True)
class BadSpec:
    name: str
    expected: list[tuple[str, str]]
    """Place (`line:column`) and code of each error."""
    text: str


def bad_specs() -> list[BadSpec]:
    cases = []
    for block in (FOLDER / "corpus.txt").read_text(encoding="utf-8").split("\n=== ")[1:]:
        head, *lines = block.split("\n")
        expected = [line.removeprefix("--- ") for line in lines if line.startswith("--- ")]
        text = "\n".join(line for line in lines if not line.startswith("--- "))
        cases.append(BadSpec(head, [tuple(line.split(" ", 1)) for line in expected], text))
    return cases


def make_folder(folder: Path) -> Path:
    """The files that the corpus refers to."""
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "prepare.sh").write_text("echo hello\n")
    (folder / "other.txt").write_text("hello\n")
    (folder / "src").mkdir()
    return folder
