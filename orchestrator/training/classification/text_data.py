"""Labelled texts and what each is for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.training.classification.label_names import class_names
from orchestrator.training.classification.split import Split, stratified
from orchestrator.training.classification.text_files import LabelledTexts, read_texts


@dataclass(frozen=True)
class TextData:
    """The same on every rank."""

    texts: list[str]
    labels: list[int]
    classes: list[str]
    """By label."""
    split: Split
    source: str
    """In words, for the log."""


def load_text_files(
    train: str,
    validation: str | None,
    test: str | None,
    *,
    text_column: str,
    label_column: str,
    seed: int,
    validation_share: float = 0.1,
    test_share: float = 0.1,
) -> TextData:
    """Texts of the named files; a part that has no file is cut from the first, class by class.

    Raises UserError as `read_texts` does, and for a label that is in no training text.
    """
    paths = [Path(path) for path in (train, validation, test) if path is not None]
    files = [read_texts(path, text_column=text_column, label_column=label_column) for path in paths]
    classes = class_names(files[0].labels)
    if len(classes) < 2:
        raise UserError(f"{paths[0]}: every text has the label {classes[0]}, and two are needed")
    labels = [label for file in files for label in _numbered(file, classes, paths[0])]
    counts = [len(file.texts) for file in files]
    starts = [sum(counts[:number]) for number in range(len(files) + 1)]
    parts = [list(range(*ends)) for ends in pairwise(starts)]
    split = stratified(
        labels,
        validation=validation_share if validation is None else 0.0,
        test=test_share if test is None else 0.0,
        seed=seed,
        among=parts[0],
    )
    if validation is not None:
        split = split._replace(validation=parts[1])
    if test is not None:
        split = split._replace(test=parts[-1])
    texts = [text for file in files for text in file.texts]
    source = f"{len(texts):,} texts of {', '.join(map(str, paths))}"
    return TextData(texts, labels, classes, split, source)


def _numbered(file: LabelledTexts, classes: list[str], known_from: Path) -> list[int]:
    ids = {name: number for number, name in enumerate(classes)}
    for label, line in zip(file.labels, file.lines, strict=True):
        if label not in ids:
            raise UserError(
                f"{file.path}, line {line}: the label {label} is none of those in {known_from}",
                hint=f"they are {', '.join(classes[:20])}",
            )
    return [ids[label] for label in file.labels]
