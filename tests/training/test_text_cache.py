"""Tokens are made once, whole or not at all, and the same for everybody."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.training.language import cache as caching
from orchestrator.training.language.cache import MANIFEST, cache_root, is_whole, made_once
from orchestrator.training.language.dataset import TextOptions, load_text
from orchestrator.training.language.sources import Source
from orchestrator.training.language.tokenizers import ByteTokenizer, Ids
from orchestrator.training.process_group import Rank

pytestmark = pytest.mark.slow

ALONE = Rank(0, 1, 0, torch.device("cpu"))


class Counting(ByteTokenizer):
    """Bytes, and how often they were asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Any) -> list[Ids]:
        self.calls += len(texts)
        return super().encode(texts)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(50)))
    return path


def tokenised(data: Path, *, context: int = 16, identity: str = "a") -> int:
    """How many texts had to be tokenised for this."""
    tokenizer = Counting()
    tokenizer.identity = identity
    options = TextOptions(data=str(data), context=context, cache=str(data.parent / "cache"))
    loaded = load_text(options, tokenizer, ALONE)
    assert loaded.train.take([0]).weight > 0
    return tokenizer.calls


def test_data_is_tokenised_once_and_again_when_it_or_the_tokenizer_changes(data: Path) -> None:
    assert tokenised(data) == 50
    assert tokenised(data) == 0
    assert tokenised(data, context=8) == 0  # only planned anew
    assert tokenised(data, identity="b") == 50
    data.write_text(data.read_text().replace("text 7", "text 8"))
    os.utime(data, ns=(1, 1))
    assert tokenised(data) == 50


def test_a_split_that_was_saved_anew_inside_a_dataset_is_seen(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    rows = tmp_path / "train" / "data.arrow"
    rows.write_bytes(b"rows")
    source = Source(str(tmp_path), "dataset")
    before = source.facts()
    rows.write_bytes(b"ROWS")
    os.utime(rows, ns=(1, 1))
    assert source.facts() != before


@pytest.mark.parametrize(
    "damage", ["truncated", "changed", "missing", "no manifest", "torn manifest"]
)
def test_a_damaged_cache_is_made_again(data: Path, damage: str) -> None:
    tokenised(data)
    (tokens,) = data.parent.glob("cache/*/tokens.bin")
    manifest = tokens.with_name(MANIFEST)
    if damage == "truncated":
        tokens.write_bytes(tokens.read_bytes()[:-2])
    elif damage == "changed":
        tokens.write_bytes(b"\0" * tokens.stat().st_size)
    elif damage == "torn manifest":
        manifest.write_text(manifest.read_text()[:20])
    else:
        (tokens if damage == "missing" else manifest).unlink()
    assert tokenised(data) == 50
    assert tokenised(data) == 0


def make_slowly(folder: Path) -> dict[str, Any]:
    (folder / "a").write_text("half")
    time.sleep(0.05)
    (folder / "a").write_text("whole")
    return {"size": 5}


def test_of_many_builders_at_once_one_wins_and_all_see_it_whole(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(made_once(tmp_path, "k", make_slowly)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "k"] * 8
    assert is_whole(tmp_path / "k")
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_builder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "a").write_text("half")
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        made_once(tmp_path, "k", fail)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_builder_left_is_cleared_after_a_day(tmp_path: Path) -> None:
    for name, age in (("old", 2 * 24 * 3600), ("young", 60)):
        left = tmp_path / f".k.{name}"
        left.mkdir()
        (left / "a").touch()
        for path in (left / "a", left):
            os.utime(path, (time.time() - age,) * 2)
    made_once(tmp_path, "k", make_slowly)
    assert {path.name for path in tmp_path.iterdir()} == {"k", ".k.young"}


def test_a_large_file_is_sampled_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "_WHOLE_BYTES", 64)
    monkeypatch.setattr(caching, "_SAMPLE_BYTES", 8)

    def make(folder: Path) -> dict[str, Any]:
        (folder / "a").write_bytes(bytes(200))
        return {}

    folder = made_once(tmp_path, "k", make)
    for place in (0, 199):
        content = bytearray(200)
        content[place] = 1
        (folder / "a").write_bytes(content)
        assert not is_whole(folder)
    (folder / "a").write_bytes(bytes(200))
    assert is_whole(folder)


def test_a_cache_that_cannot_be_written_is_said_in_a_sentence(data: Path) -> None:
    (data.parent / "cache").write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot keep tokens in .*cache"):
        tokenised(data)


def test_where_tokens_are_kept() -> None:
    assert cache_root("here", {"PTX_CACHE": "/p"}) == Path("here")
    assert cache_root(None, {"PTX_CACHE": "/p", "XDG_CACHE_HOME": "/x"}) == Path("/p")
    assert cache_root(None, {"XDG_CACHE_HOME": "/x"}) == Path("/x/ptx/tokens")
    assert cache_root(None, {}) == Path("~/.cache/ptx/tokens").expanduser()
