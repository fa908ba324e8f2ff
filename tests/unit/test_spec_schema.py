"""The JSON Schema: public, versioned, documented."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.spec.fields import spec_fields
from orchestrator.spec.schema import json_schema

JOBS = Path(__file__).parents[2] / "jobs"
GOLDEN = Path(__file__).with_name("spec_keys.txt")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


def test_the_keys_of_the_spec_are_frozen() -> None:
    """A key that goes or changes its kind needs a new version of the format.

    PTX_UPDATE_GOLDEN=1 rewrites the file when a key is added.
    """
    keys = "".join(f"{'.'.join(path)} {kind.value}\n" for path, kind in spec_fields().items())
    if os.environ.get("PTX_UPDATE_GOLDEN"):
        GOLDEN.write_text(keys)
    assert keys == GOLDEN.read_text()


def test_the_schema_is_a_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_spec_fits_the_schema(path: Path, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("part", "fits"),
    [
        ({"launcher": "torchrun", "strategy": "zero"}, True),
        ({"launcher": {"name": "x", "args": []}, "strategy": {"name": "zero", "stage": 3}}, True),
        ({"strategy": "dpp"}, False),
        ({"strategy": {"name": "fsdp", "stage": 3}}, False),
        ({"launcher": 3}, False),
        ({"resources": {"gpu": 3}}, False),
        ({"resources": {"nodes": 0}}, False),
        ({"env": {"A": "a\nb"}}, False),
        ({"env": {"A": 1}}, False),
        ({"name": "a b"}, False),
        ({"unknown": 1}, False),
    ],
)
def test_the_schema_takes_what_the_loader_takes(
    part: dict[str, Any], fits: bool, schema: dict[str, Any]
) -> None:
    spec = {"name": "a", "entrypoint": {"module": "m"}, **part}
    assert jsonschema.Draft202012Validator(schema).is_valid(spec) is fits


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    undescribed = [
        f"{name}.{key}"
        for name, model in {**schema["$defs"], "JobSpec": schema}.items()
        for key, definition in model["properties"].items()
        if not definition.get("description")
    ]
    assert undescribed == []
