"""The JSON Schema of the spec, for editors and for people.

pydantic's `use_attribute_docstrings` would parse every class at each import, which costs
every command 15 ms and more; the docstrings are read here, when somebody asks for the schema.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel

from orchestrator.spec.base import Model
from orchestrator.spec.job import JobSpec
from orchestrator.spec.strategy import Strategy

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """What a spec may hold, shorthands included."""
    schema = JobSpec.model_json_schema()
    definitions: dict[str, Any] = {**schema["$defs"], JobSpec.__name__: schema}
    models = {model.__name__: model for model in _models(Model)}
    for name, definition in definitions.items():
        _describe(models[name], definition)
    properties = schema["properties"]
    names = [_name_of(model) for model in get_args(get_args(Strategy)[0])]
    properties["strategy"] = _or_word(properties["strategy"], {"enum": names})
    properties["launcher"] = _or_word(properties["launcher"], {"type": "string"})
    return {"$schema": DRAFT, **schema}


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _name_of(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["name"].annotation)[0])


def _or_word(section: dict[str, Any], word: dict[str, Any]) -> dict[str, Any]:
    """The section as it is, or one word that stands for `{name: word}`."""
    outer: dict[str, Any] = {
        key: section.pop(key) for key in ("description", "default") if key in section
    }
    return {"anyOf": [word, section], **outer}


def _describe(model: type[BaseModel], definition: dict[str, Any]) -> None:
    for owner in reversed(model.__mro__):
        if issubclass(owner, Model) and owner is not Model:
            for name, text in _attribute_docstrings(owner).items():
                definition["properties"][name]["description"] = text


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The strings that stand below the fields of a class."""
    module = ast.parse(inspect.getsource(sys.modules[model.__module__]))
    body = next(
        node.body
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == model.__name__
    )
    found = {}
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(text.value.value).replace("\n", " ")
    return found
