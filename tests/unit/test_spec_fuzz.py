"""Whatever is in the file: a spec or a SpecError, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.spec.diagnostics import SpecError
from orchestrator.spec.loader import load

GOOD: dict[str, Any] = {
    "version": 1,
    "name": "a",
    "entrypoint": {"module": "m", "args": {"lr": 0.1, "names": ["x", "y"], "flag": True}},
    "launcher": {"name": "torchrun", "args": ["--tee", "3"]},
    "scheduler": "slurm",
    "resources": {"nodes": 2, "gpus_per_node": 8, "memory": "64GB", "time_limit": "12h"},
    "slurm": {"partition": "gpu", "options": {"mail-type": "END", "requeue": True}},
    "strategy": {"name": "zero", "stage": 3, "offload": "all"},
    "training": {"micro_batch": 4, "optimizer": {"betas": [0.9, 0.95]}, "lora": {"rank": 8}},
    "rendezvous": {"port": 12345, "interface": "ib0"},
    "env": {"A": "1"},
    "secrets": ["TOKEN"],
    "setup": ["module load cuda"],
    "restart": {"on": ["failed"]},
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["auto", "zero", "12:30:00", "no", "--x", "\n", "${HOME}", "x" * 300, "0"])
)
NAMES = ["name", "script", "module", "command", "args", "nodes", "stage", "list[str]", "int", "on"]
KEYS = st.sampled_from([*NAMES, "bool", "zero", "lora", "env", "A"]) | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | SCALARS, inner, max_size=4),
    max_leaves=8,
)
FUZZ = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def is_spec_or_spec_error(path: Path, data: bytes, *overrides: str) -> None:
    path.write_bytes(data)
    try:
        result = load(path, overrides)
    except SpecError as error:
        assert error.diagnostics
        lines = data.decode("utf-8", "replace").count("\n") + data.count(b"\r") + 100
        for one in error.diagnostics:
            assert one.message
            assert "Input should" not in one.message
            assert one.column >= 1
            assert one.line is None or 1 <= one.line <= lines
            one.text().encode("utf-8")
            one.to_json()
    else:
        assert result.text == data


@FUZZ
@given(data=st.binary(max_size=200))
def test_random_bytes(path: Path, data: bytes) -> None:
    is_spec_or_spec_error(path, data)


@FUZZ
@given(data=st.text(alphabet="ab:-?&*!|>'\"%@`#{}[],<~ \t\n\\0e.", max_size=80))
def test_random_yaml_punctuation(path: Path, data: str) -> None:
    is_spec_or_spec_error(path, data.encode())


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


@FUZZ
@given(
    place=st.sampled_from(places(GOOD)[1:]), value=TREES, key=KEYS | SCALARS, extra=st.booleans()
)
def test_a_good_spec_with_one_value_or_key_changed(
    path: Path, place: tuple[Any, ...], value: Any, key: Any, extra: bool
) -> None:
    spec = copy.deepcopy(GOOD)
    parent: Any = spec
    for part in place[:-1]:
        parent = parent[part]
    if extra and isinstance(parent, dict):
        parent[key] = value
    else:
        parent[place[-1]] = value
    is_spec_or_spec_error(path, yaml.safe_dump(spec, allow_unicode=True).encode("utf-8", "replace"))


@FUZZ
@given(
    cut=st.integers(0, 1000),
    length=st.integers(0, 8),
    put=st.text("a:-[]{}'\"\n\t &*!0", max_size=4),
)
def test_a_good_spec_with_characters_changed(path: Path, cut: int, length: int, put: str) -> None:
    text = yaml.safe_dump(GOOD)
    cut %= len(text)
    is_spec_or_spec_error(path, (text[:cut] + put + text[cut + length :]).encode())


@FUZZ
@given(
    keys=st.lists(KEYS, max_size=4),
    value=st.text(max_size=20),
    dotted=st.sampled_from(places(GOOD)),
)
def test_random_overrides(path: Path, keys: list[str], value: str, dotted: tuple[Any, ...]) -> None:
    override = ".".join([*map(str, dotted), *keys]) + "=" + value
    is_spec_or_spec_error(path, yaml.safe_dump(GOOD).encode(), override)
