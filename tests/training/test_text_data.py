"""What is read, what of it is learnt, and what is said when it cannot be."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_tokenizer import CHATML, tiny_tokenizer

from orchestrator.errors import UserError
from orchestrator.training.batch import IGNORED
from orchestrator.training.language import lines
from orchestrator.training.language.dataset import TextData, TextOptions, load_text
from orchestrator.training.language.samples import Samples
from orchestrator.training.language.tokenizers import ByteTokenizer, Tokenizer, load_tokenizer
from orchestrator.training.language.windows import Windows
from orchestrator.training.process_group import Rank

pytestmark = pytest.mark.slow

ALONE = Rank(0, 1, 0, torch.device("cpu"))
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "a?"},
    {"role": "assistant", "content": "b."},
    {"role": "user", "content": "c?"},
    {"role": "assistant", "content": "d!"},
]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(tiny_tokenizer(tmp_path_factory.mktemp("bpe")))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(data: Any, tokenizer: Tokenizer | None = None, **options: Any) -> TextData:
    chosen = TextOptions(data=data, **({"context": 64, "packed": True} | options))
    return load_text(chosen, tokenizer or ByteTokenizer(), ALONE)


def jsonl(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def documents(data: TextData, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Each training document's text, and what of it is learnt, in the order of the samples."""
    assert isinstance(data.train, Samples)
    found = []
    for index in range(len(data.train)):
        batch = data.train.take([index])
        bounds = batch.inputs.get("cu_seqlens", torch.tensor([0, data.train.context])).tolist()
        tokens, targets = batch.inputs["tokens"][0], batch.targets[0]
        for first, last in pairwise(bounds):
            aims = [i for i in targets[first:last].tolist() if i != IGNORED]
            if aims:
                text = [int(tokens[first]), *tokens[first + 1 : last].tolist()]
                found.append((tokenizer.decode(text), tokenizer.decode(aims)))
    return found


def learnt(data: TextData, tokenizer: Tokenizer) -> set[str]:
    return {said for _, said in documents(data, tokenizer)}


FILLER = [{"text": f"number {i}"} for i in range(30)]


def test_jsonl_parquet_a_saved_dataset_and_gzip_give_the_same_documents(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    from pyarrow import parquet

    rows = [{"body": f"text {i}", "other": i} for i in range(40)]
    places = [jsonl(tmp_path / "d.jsonl", *rows), str(tmp_path / "d.jsonl.gz")]
    Path(places[1]).write_bytes(gzip.compress(Path(places[0]).read_bytes()))
    places.append(str(tmp_path / "d.parquet"))
    parquet.write_table(pyarrow.Table.from_pylist(rows), places[2])
    table = datasets.Dataset.from_list(rows)
    places += [str(tmp_path / "saved"), str(tmp_path / "splits")]
    table.save_to_disk(places[3])
    datasets.DatasetDict({"test": table, "train": table.select([0])}).save_to_disk(places[4])
    results = [
        documents(load(place, columns={"text": "body"}, split="test"), ByteTokenizer())
        for place in places
    ]
    assert len(results[0]) == 38
    assert all(result == results[0] for result in results)


def test_a_folder_globs_and_lists_name_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "README.md").write_text("not read beside records")
    names = [jsonl(tmp_path / "d" / f"{n}.jsonl", *FILLER[n * 10 : n * 10 + 10]) for n in range(3)]
    expected = learnt(load(names), ByteTokenizer())
    assert learnt(load(str(tmp_path / "d")), ByteTokenizer()) == expected
    assert learnt(load(str(tmp_path / "d" / "*.jsonl")), ByteTokenizer()) == expected
    assert len(expected) == 28


def test_each_text_file_is_a_document_and_a_long_one_is_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpe: Tokenizer
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 7)
    texts = ["one ümlaut line\nand another\r\n" * 5, "x" * 50 + "é" * 20, "short", ""]
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text.encode())
    for tokenizer in (ByteTokenizer(), bpe):
        data = load(str(folder), tokenizer, context=400, heldout=str(folder / "2.txt"))
        found = [text for text, _ in documents(data, tokenizer)]
        assert sorted(found) == sorted(texts[:3])


def test_a_prompt_is_not_learnt_and_a_completion_is_with_its_end(tmp_path: Path) -> None:
    records = [{"prompt": "2+2=", "completion": "4"}] * 2
    data = load(jsonl(tmp_path / "d.jsonl", *records), packed=False, context=8)
    batch = data.train.take([0])
    assert batch.targets.tolist() == [[IGNORED] * 3 + [ord("4"), ByteTokenizer.end] + [IGNORED] * 3]
    assert batch.weight == 2


def test_of_a_conversation_only_the_assistant_is_learnt(tmp_path: Path, bpe: Tokenizer) -> None:
    path = jsonl(tmp_path / "d.jsonl", *[{"messages": CHAT}] * 3)
    ((whole, said), *_) = documents(load(path, context=200), ByteTokenizer())
    assert whole == (
        "<|system|>\nbe brief\n<|user|>\na?\n<|assistant|>\nb.\n<|user|>\nc?\n<|assistant|>\nd!"
    )
    assert said == "b.d!"
    ((whole, said), *_) = documents(load(path, bpe, context=200), bpe)
    assert whole.startswith("system\nbe brief\nuser\na?\nassistant\nb.\nuser\nc?")
    assert said == "b.\nd!\n"


def test_the_ids_of_a_conversation_are_those_of_its_template(
    tmp_path: Path, bpe: Tokenizer
) -> None:
    from transformers import AutoTokenizer

    data = load(jsonl(tmp_path / "d.jsonl", *[{"messages": CHAT}] * 2), bpe, context=200)
    ids = AutoTokenizer.from_pretrained(bpe.name).apply_chat_template(CHAT, return_dict=False)
    tokens = data.train.take([0]).inputs["tokens"][0, : len(ids) - 1]
    assert tokens.tolist() == ids[:-1]


def test_a_template_that_marks_the_assistant_is_believed(tmp_path: Path) -> None:
    marking = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    tokenizer = load_tokenizer(tiny_tokenizer(tmp_path / "t", template=marking))
    data = load(jsonl(tmp_path / "d.jsonl", *[{"messages": CHAT}] * 2), tokenizer, context=200)
    assert learnt(data, tokenizer) == {"b.d!"}


def test_a_template_that_forgets_earlier_turns_is_refused(tmp_path: Path) -> None:
    forgetful = CHATML.replace("messages %}<", "messages[-2:] %}<")
    tokenizer = load_tokenizer(tiny_tokenizer(tmp_path / "t", template=forgetful))
    path = jsonl(tmp_path / "d.jsonl", *[{"messages": CHAT}] * 2)
    with pytest.raises(UserError, match=r"d\.jsonl:1: the chat template .* turn 3"):
        load(path, tokenizer)


def test_records_with_nothing_to_learn_are_skipped_and_counted(tmp_path: Path) -> None:
    empty = [{"text": ""}, {"prompt": "x", "completion": ""}, {"messages": CHAT[:2]}]
    data = load(jsonl(tmp_path / "d.jsonl", *empty, *FILLER))
    assert "3 records skipped" in data.source
    assert "30 documents" in data.source
    with pytest.raises(UserError, match=r"d\.jsonl is left to train on: 3 records"):
        load(jsonl(tmp_path / "d.jsonl", *empty))


def bad(tmp_path: Path, kind: str) -> str:
    good = b'{"text": "fine"}\n'
    content = {
        "empty": b"",
        "not utf-8": good + b'{"text": "\xff"}\n',
        "not json": good + b"{'text': 1}\n",
        "no object": good + b"[1, 2]\n",
        "too deep": good + b"[" * 100_000 + b"\n",
        "missing column": good + b'{"txet": "fine"}\n',
        "number": good + b'{"text": 5}\n',
        "null": good + b'{"text": null}\n',
        "prompt list": good + b'{"prompt": [], "completion": "x"}\n',
        "messages text": good + b'{"messages": "hi"}\n',
        "message without role": good + b'{"messages": [{"content": "hi"}]}\n',
        "giant line": good + b'{"text": "' + b"x" * 3000 + b'"}\n',
    }
    path = tmp_path / "d.jsonl"
    path.write_bytes(content[kind])
    return str(path)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("empty", r"d\.jsonl is empty"),
        ("not utf-8", r"d\.jsonl:2: byte 0xff is no UTF-8"),
        ("not json", r"d\.jsonl:2: the line is no JSON"),
        ("no object", r"d\.jsonl:2: the line is JSON and no object"),
        ("too deep", r"d\.jsonl:2: the line is (no JSON|longer)"),
        ("missing column", r"d\.jsonl:2: there is no column text, nor prompt and .*: txet"),
        ("number", r"d\.jsonl:2: text is a number, and must be text"),
        ("null", r"d\.jsonl:2: text is null, and must be text"),
        ("prompt list", r"d\.jsonl:2: prompt is a list, and must be text"),
        ("messages text", r"d\.jsonl:2: messages is text, and must be a list of messages"),
        ("message without role", r"d\.jsonl:2: message 1 is no object with"),
        ("giant line", r"d\.jsonl:2: the line is longer than"),
    ],
)
def test_bad_records_are_named_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, kind: str, sentence: str
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2000)
    with pytest.raises(UserError, match=sentence):
        load(bad(tmp_path, kind))
    assert list(cache.iterdir()) == []


def test_bad_utf8_in_text_is_named_by_line_across_blocks_or_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpe: Tokenizer
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 8)
    path = tmp_path / "d.txt"
    path.write_bytes(b"first line\nsecond line\nthird \xe9 line\n" + b"more\n" * 30)
    with pytest.raises(UserError, match=r"d\.txt:3: byte 0xe9 is no UTF-8"):
        load(str(path), bpe)
    data = load(str(path), bpe, bad_utf8="replace", context=400, heldout=str(path))
    assert any("third \ufffd line" in text for text, _ in documents(data, bpe))


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        ("nowhere.jsonl", {}, "nowhere.jsonl is not there"),
        ("*.nothing", {}, "nothing is not there"),
        ("d.jsonl", {"columns": {"text": "body"}}, "no column body; the columns are: text"),
        ("d.jsonl", {"columns": {"prompt": "a"}}, "no form of a record"),
        ("d.parquet", {}, "cannot read the data .*d.parquet"),
        ("d.jsonl.gz", {}, "cannot read the data .*d.jsonl.gz"),
        ("d.jsonl", {"heldout_share": 1.0}, "heldout_share is 1.0"),
        ("one.jsonl", {"context": 400}, "no document to"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    tmp_path: Path, data: str, options: dict[str, Any], sentence: str
) -> None:
    jsonl(tmp_path / "d.jsonl", *FILLER)
    jsonl(tmp_path / "one.jsonl", {"text": "x"})
    (tmp_path / "d.parquet").write_bytes(b"no parquet")
    (tmp_path / "d.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=sentence):
        load(str(tmp_path / data), **options)


def test_a_hub_name_without_internet_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"cannot load the dataset nobody/nothing-here"):
        load("nobody/nothing-here")


def test_fewer_samples_than_a_step_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", *FILLER[:6])
    chosen = TextOptions(data=path, context=64, packed=False)
    assert len(load_text(chosen, ByteTokenizer(), ALONE, step_samples=6).train) == 6
    with pytest.raises(UserError, match="makes 6 samples of 64 tokens, and one step takes 7"):
        load_text(chosen, ByteTokenizer(), ALONE, step_samples=7)


def test_bytes_of_plain_text_are_a_stream_unless_packing_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes(b"any \xff bytes " * 300)
    data = load(str(path), packed=None)
    assert isinstance(data.train, Windows)
    assert isinstance(load(None, packed=None).train, Windows)
    assert isinstance(load(jsonl(tmp_path / "d.jsonl", *FILLER), packed=None).train, Samples)


def test_a_stream_is_read_from_the_files_that_a_pattern_or_folder_names(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "index").write_bytes(bytes(5000))
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(name * 200)
    streams = [load(place, packed=None) for place in (str(folder), str(folder / "*.txt"))]
    for data in streams:
        assert isinstance(data.train, Windows) and isinstance(data.heldout, Windows)
        text = torch.cat((data.train.text, data.heldout.text)).numpy().tobytes()
        assert text == b"a.txt" * 200 + b"\n" + b"b.txt" * 200


class TestTokenizers:
    def test_bytes_are_their_own_ids_and_come_back(self) -> None:
        tokenizer = load_tokenizer("bytes")
        (ids,) = tokenizer.encode(["aé\n"])
        assert ids.tolist() == list("aé\n".encode())
        assert tokenizer.decode([*ids.tolist(), tokenizer.end, tokenizer.pad]) == "aé\n"
        assert max(tokenizer.end, tokenizer.pad) < tokenizer.vocabulary

    def test_a_tokenizer_of_transformers_is_read_from_its_folder(self, bpe: Tokenizer) -> None:
        (ids,) = bpe.encode(["the quick brown fox"])
        assert bpe.decode([*ids.tolist(), bpe.end]) == "the quick brown fox"
        assert len(ids) < 19
        assert bpe.vocabulary > max(bpe.end, int(ids.max()))
        assert bpe.encode([]) == []

    def test_its_identity_changes_with_its_template(self, bpe: Tokenizer, tmp_path: Path) -> None:
        again = load_tokenizer(tiny_tokenizer(tmp_path / "same"))
        other = load_tokenizer(tiny_tokenizer(tmp_path / "other", template=None))
        assert again.identity == bpe.identity != other.identity

    @pytest.mark.parametrize("files", [[], ["tokenizer.json"]])
    def test_one_that_is_not_there_or_broken_is_said_in_a_sentence(
        self, tmp_path: Path, files: Sequence[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in files:
            (tmp_path / name).write_text("{")
        with pytest.raises(UserError, match=f"cannot load the tokenizer {tmp_path}"):
            load_tokenizer(str(tmp_path))


def test_ids_fill_16_bits_where_they_fit(tmp_path: Path, cache: Path) -> None:
    load(jsonl(tmp_path / "d.jsonl", *FILLER))
    (tokens,) = cache.glob("*/tokens.bin")
    characters = sum(len(record["text"]) + 1 for record in FILLER)
    assert os.path.getsize(tokens) == 2 * characters
