"""Which bytes are trained on, and that every rank takes its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.training.language import corpus as data
from orchestrator.training.language.corpus import load_corpus
from orchestrator.training.language.windows import Windows
from orchestrator.training.sampling import Shuffle, permuted, samples_of

pytestmark = pytest.mark.slow


def digest(corpus: data.Corpus) -> str:
    text = bytes(corpus.train.tolist()) + bytes(corpus.heldout.tolist())
    return hashlib.sha256(text).hexdigest()


def test_the_standard_library_is_the_same_bytes_in_every_process() -> None:
    script = (
        "import hashlib\n"
        "from orchestrator.training.language.corpus import load_corpus\n"
        "c = load_corpus(None)\n"
        "print(hashlib.sha256(c.train.numpy().tobytes() + c.heldout.numpy().tobytes()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest(load_corpus(None))


def test_the_standard_library_is_source_without_tests_and_packages() -> None:
    corpus = load_corpus(None)
    text = bytes(torch.cat((corpus.train, corpus.heldout)).tolist())
    stdlib = Path(sysconfig.get_path("stdlib"))
    assert (stdlib / "argparse.py").read_bytes() in text
    assert Path(torch.__file__).read_bytes() not in text
    assert 1 << 20 < len(text) < 64 << 20


def test_a_folder_is_joined_in_the_order_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("z.txt", "a.txt", "sub/m.txt"):
        (tmp_path / name).write_bytes(name.encode())
    corpus = load_corpus(str(tmp_path), heldout_share=0.25)
    assert bytes(corpus.train.tolist()) + bytes(corpus.heldout.tolist()) == (
        b"a.txt\nsub/m.txt\nz.txt"
    )
    assert bytes(corpus.heldout.tolist()) == b"z.txt"


def test_a_file_is_mapped_and_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(bytes(range(256)) * 8)
    corpus = load_corpus(str(path))
    assert str(path) in Path("/proc/self/maps").read_text()
    corpus.train[0] = 99
    assert path.read_bytes()[0] == 0
    assert (len(corpus.train), len(corpus.heldout)) == (2048 - 102, 102)


def test_what_cannot_be_read_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    for path in ("nowhere", "empty"):
        with pytest.raises(UserError, match=path):
            load_corpus(str(tmp_path / path))
    with pytest.raises(UserError, match="no text"):
        load_corpus(str(tmp_path))
    (tmp_path / "large").write_bytes(b"x" * 100)
    monkeypatch.setattr(data, "MAX_FOLDER_BYTES", 99)
    with pytest.raises(UserError, match="100 bytes"):
        load_corpus(str(tmp_path))


@given(size=st.integers(1, 600), key=st.binary(min_size=1, max_size=8))
def test_a_shuffle_takes_every_window_once(size: int, key: bytes) -> None:
    assert sorted(permuted(i, size, key) for i in range(size)) == list(range(size))


def test_a_shuffle_is_no_shift_and_differs_by_epoch_and_seed() -> None:
    shuffle = Shuffle(1000, seed=0)
    first = [shuffle.position(sample) for sample in range(1000)]
    second = [shuffle.position(sample) for sample in range(1000, 2000)]
    other = [Shuffle(1000, seed=1).position(sample) for sample in range(1000)]
    assert sorted(first) == sorted(second) == sorted(other) == list(range(1000))
    for shuffled in (second, other):
        assert sum(a == b for a, b in zip(first, shuffled, strict=True)) < 20
    # Neighbours land about a third of the range apart when they are independent.
    apart = sum(abs(a - b) for a, b in pairwise(first)) / 999
    assert 280 < apart < 390


@given(
    world=st.integers(1, 5),
    micro=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    steps=st.integers(1, 4),
)
def test_ranks_overlap_nowhere_and_leave_nothing_out(
    world: int, micro: int, accumulation: int, steps: int
) -> None:
    seen = [
        sample
        for step in range(steps)
        for rank in range(world)
        for part in range(accumulation)
        for sample in samples_of(
            step, part, rank, micro_batch=micro, accumulation=accumulation, data_size=world
        )
    ]
    assert sorted(seen) == list(range(steps * world * micro * accumulation))


def test_targets_are_the_inputs_one_byte_later() -> None:
    text = torch.arange(101, dtype=torch.uint8)
    batch = Windows(text, 10).take(range(10))
    inputs, targets = batch.inputs["tokens"], batch.targets
    assert batch.weight == 100
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)
    assert sorted(inputs.flatten().tolist()) == list(range(100))


def test_text_shorter_than_a_window_is_refused() -> None:
    assert len(Windows(torch.zeros(9, dtype=torch.uint8), 8)) == 1
    with pytest.raises(UserError, match=r"a\.txt has 8 bytes, .* fill one window of 8"):
        Windows(torch.zeros(8, dtype=torch.uint8), 8, name="a.txt")
