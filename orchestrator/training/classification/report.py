"""A classifier's test result: as a table for a person, and as a file for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.training.classification.scores import Scores

FILE = "evaluation.json"
VERSION = 1
WIDEST = 20
"""Classes up to which the confusion matrix is printed: more do not fit on a screen."""


def write_evaluation(
    folder: Path, scores: Scores, classes: Sequence[str], *, loss: float, step: int
) -> None:
    """Write evaluation.json: loss in nats a sample, the rest as `Scores` says."""
    facts: dict[str, Any] = {
        "v": VERSION,
        "split": "test",
        "step": step,
        "samples": scores.samples,
        "loss": loss,
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "classes": [
            {"name": name, "precision": p, "recall": r, "f1": f1, "samples": samples}
            for name, p, r, f1, samples in _by_class(scores, classes)
        ],
        "confusion": scores.confusion.tolist(),
    }
    (folder / FILE).write_text(json.dumps(facts, indent=2) + "\n")


def table(scores: Scores, classes: Sequence[str]) -> str:
    """Precision, recall and F1 of each class; then who was taken for whom."""
    head = ("class", "precision", "recall", "f1", "samples")
    rows = [
        (name, f"{p:.3f}", f"{r:.3f}", f"{f1:.3f}", f"{samples:,}")
        for name, p, r, f1, samples in _by_class(scores, classes)
    ]
    parts = [_aligned([head, *rows])]
    if len(classes) <= WIDEST:
        counts = [
            (name, *map(str, row))
            for name, row in zip(classes, scores.confusion.tolist(), strict=True)
        ]
        parts.append(_aligned([("true \\ predicted", *classes), *counts]))
    return "\n\n".join(parts)


def _by_class(scores: Scores, classes: Sequence[str]) -> list[tuple[str, float, float, float, int]]:
    columns = (classes, scores.precision, scores.recall, scores.f1, scores.support)
    return list(zip(*columns, strict=True))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
