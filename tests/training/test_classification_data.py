"""Labelled texts: what is read, what is refused, and that held-out text is held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.training.classification.encoding import PAD, START, load_encoder
from orchestrator.training.classification.label_names import class_names
from orchestrator.training.classification.source_code import load_source_code
from orchestrator.training.classification.text_data import TextData, load_text_files
from orchestrator.training.classification.text_files import LabelledTexts, read_texts


def read(path: Path, content: str | bytes) -> LabelledTexts:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_texts(path, text_column="text", label_column="label")


def test_csv_and_json_lines_hold_the_same(tmp_path: Path) -> None:
    csv = read(
        tmp_path / "x.csv", '\ufefflabel,id,text\r\n1,a,"two\nlines, ""q"""\r\n\r\n0,b,é\r\n'
    )
    lines = '{"text": "two\\nlines, \\"q\\"", "label": 1}\n\n{"label": "0", "text": "é"}\n'
    jsonl = read(tmp_path / "x.jsonl", lines)
    assert csv.texts == jsonl.texts == ['two\nlines, "q"', "é"]
    assert csv.labels == jsonl.labels == ["1", "0"]
    assert (csv.lines, jsonl.lines) == ([3, 5], [1, 3])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.csv", "", "x.csv is empty"),
        ("x.csv", "text,label\n", "x.csv holds no text"),
        ("x.jsonl", "\n", "x.jsonl holds no text"),
        ("x.csv", "text,class\na,b\n", r"x.csv, line 1: there is no column label"),
        ("x.csv", "text,label\na,b\na,b,c\n", r"x.csv, line 3: 3 fields, and the header has 2"),
        ("x.csv", "text,label\na,b\na,\n", r"x.csv, line 3: the label is ''"),
        ("x.csv", 'text,label\na,b\n"a,b\n', r"x.csv, line 3: unexpected end of data"),
        ("x.csv", b"text,label\na,b\n\xff,b\n", r"x.csv, line 3: no UTF-8 from byte 1"),
        ("x.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', r"line 2: there is no column la"),
        ("x.jsonl", '{"text": "a", "label": 1}\n{"text"\n', r"x.jsonl, line 2: no JSON"),
        ("x.jsonl", "[" * 100_000 + "\n", r"x.jsonl, line 1: no JSON"),
        ("x.jsonl", "[1]\n", r"x.jsonl, line 1: no JSON object"),
        ("x.jsonl", '{"text": 3, "label": 1}\n', r"line 1: text is no text: 3"),
        ("x.jsonl", '{"text": "a", "label": 1.5}\n', r"line 1: the label is 1.5"),
        ("x.jsonl", b"a" * (17 << 20), r"x.jsonl, line 1: longer than 16,777,216 bytes"),
        ("x.txt", "a", "neither a .csv nor a .jsonl"),
    ],
)
def test_bad_files_are_refused_with_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        read(tmp_path / name, content)


def test_labels_are_numbered_in_sorted_order() -> None:
    assert class_names(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert class_names(["b", "10", "9"]) == ["10", "9", "b"]


def load(train: Path, validation: Path | None = None) -> TextData:
    return load_text_files(
        str(train),
        str(validation) if validation else None,
        None,
        text_column="text",
        label_column="label",
        seed=0,
    )


def test_parts_without_a_file_are_cut_from_the_training_texts(tmp_path: Path) -> None:
    train, validation = tmp_path / "train.csv", tmp_path / "valid.csv"
    train.write_text("text,label\n" + "".join(f"t{n},{'ab'[n % 2]}\n" for n in range(40)))
    validation.write_text("text,label\nv,b\n")
    found = load(train, validation)
    assert [len(part) for part in found.split] == [36, 1, 4]
    assert [found.texts[number] for number in found.split.validation] == ["v"]
    assert sorted(n for part in found.split for n in part) == list(range(41))
    assert found.labels[:3] == [0, 1, 0]
    validation.write_text("text,label\nv,b\nw,c\n")
    with pytest.raises(UserError, match=r"valid.csv, line 3: the label c is none of those"):
        load(train, validation)
    train.write_text("text,label\nx,a\ny,a\n")
    with pytest.raises(UserError, match="every text has the label a"):
        load(train)


@pytest.mark.parametrize("name", ["words", "bytes"])
def test_the_same_text_has_the_same_ids_whatever_stands_beside_it(name: str) -> None:
    encode = load_encoder(name, length=64, vocabulary=512)
    alone, beside = encode(["def f(x):"]), encode(["é " * 500, "def f(x):", ""])
    length = int(alone["attention_mask"].sum())
    ids = beside["input_ids"]
    assert ids.shape == (3, 64)
    assert torch.equal(ids[1, :length], alone["input_ids"][0, :length])
    assert beside["attention_mask"].sum(dim=1).tolist() == [64, length, 1]
    assert (ids[1, length:] == PAD).all()
    assert (ids[:, 0] == START).all()
    assert ids.max() < encode.vocabulary
    assert ids[0].ne(PAD).all()


def test_no_piece_of_source_code_is_in_two_parts() -> None:
    found = load_source_code(seed=0)
    parts = [{found.texts[number] for number in part} for part in found.split]
    assert sum(map(len, parts)) == len(found.texts) == len(set(found.texts))
    for part in found.split:
        assert {found.labels[number] for number in part} == set(range(len(found.classes)))
    assert found.texts == load_source_code(seed=0).texts


def test_a_file_of_source_code_is_wholly_in_one_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from orchestrator.training.classification import source_code

    for number in range(20):
        lines = [f"file {number} line {line}" for line in range(100)]
        (tmp_path / f"{number}.py").write_text("\n".join(lines))
    monkeypatch.setattr(source_code, "_root", lambda package: tmp_path)
    monkeypatch.setattr(source_code, "_LANGUAGES", {"python": ("x", "", (".py",))})
    found = load_source_code(seed=0)
    files = [{found.texts[n].split()[1] for n in part} for part in found.split]
    assert [len(part) for part in files] == [14, 2, 4]
    assert len(set.union(*files)) == 20
