"""Real labelled text that every machine has: source code, and the language it is written in."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.training.classification.split import Split
from orchestrator.training.classification.text_data import TextData
from orchestrator.training.sampling import permuted

LINES = 16
"""Of a piece; blank ones do not count."""
_FEWEST = 5
"""Fewer say too little."""
_PIECES = 800
"""At most so many of a language, so that none outweighs the others."""
_OF_A_FILE = 8
_MAX_FILE_BYTES = 1 << 20
_STANDARD_LIBRARY = "Python's own library"
_LANGUAGES = {
    "c++": ("torch", "include/c10", (".h",)),
    "cmake": ("torch", "share/cmake", (".cmake",)),
    "fortran": ("numpy", "", (".f", ".f90")),
    "python": (_STANDARD_LIBRARY, "", (".py",)),
}
"""Package, folder in it, endings. All come with what `ptx[train]` installs."""
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "idle_test"})


def load_source_code(*, seed: int) -> TextData:
    """Pieces of a few lines of C++, CMake, Fortran and Python.

    Split by file, a fifth of each language's files to test and a tenth to validate; a piece that
    occurs twice, as licences do, is taken once. Raises UserError where a package is missing.
    """
    texts: list[str] = []
    labels: list[int] = []
    split = Split([], [], [])
    seen: set[str] = set()
    for label, language in enumerate(sorted(_LANGUAGES)):
        files = _shuffled(_files(language), f"{seed}/{language}")
        for part, piece in islice(_new_pieces(files, split, seen), _PIECES):
            part.append(len(texts))
            texts.append(piece)
            labels.append(label)
    source = f"{len(texts):,} pieces of source code in {len(_LANGUAGES)} languages"
    return TextData(texts, labels, sorted(_LANGUAGES), split, source)


def _new_pieces(
    files: Sequence[Path], split: Split, seen: set[str]
) -> Iterator[tuple[list[int], str]]:
    """Each piece that is not yet `seen`, with the part that its file belongs to."""
    for number, file in enumerate(files):
        for piece in _pieces(file):
            if piece not in seen:
                seen.add(piece)
                yield _part(split, number), piece


def _part(split: Split, number: int) -> list[int]:
    """Of every ten files in a row, two are to test and one to validate."""
    return {0: split.test, 5: split.test, 3: split.validation}.get(number % 10, split.train)


def _files(language: str) -> list[Path]:
    package, folder, endings = _LANGUAGES[language]
    root = _root(package) / folder
    found = sorted(_source_files(root, endings))
    if not found:
        raise UserError(
            f"there is no {language} source in {root}, of which the built-in texts are made",
            hint="give your own with entrypoint.args.data",
        )
    return found


def _source_files(root: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_LIBRARY]
        for name in names:
            path = Path(folder, name)
            if path.suffix in endings and path.stat().st_size < _MAX_FILE_BYTES:
                yield path


def _root(package: str) -> Path:
    if package == _STANDARD_LIBRARY:
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"the built-in texts are in part those of the package {package}, which is not "
            "installed here",
            hint="pip install 'ptx[train]', or give your own with entrypoint.args.data",
        )
    return Path(spec.origin).parent


def _shuffled(files: list[Path], key: str) -> list[Path]:
    return [files[permuted(i, len(files), key.encode())] for i in range(len(files))]


def _pieces(file: Path) -> Iterator[str]:
    """From places all over the file: its head alone would be its licence."""
    lines = [line for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
    pieces = [lines[first : first + LINES] for first in range(0, len(lines) - _FEWEST + 1, LINES)]
    step = max(1, len(pieces) // _OF_A_FILE)
    for piece in pieces[::step][:_OF_A_FILE]:
        yield "\n".join(piece)
