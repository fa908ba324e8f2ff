"""Every key of the spec, read off the models."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from orchestrator.spec.job import JobSpec

Path = tuple[str, ...]


class Kind(Enum):
    SECTION = "section"
    """A mapping whose keys ptx knows."""
    OPEN = "open"
    """A mapping with any keys, or a list."""
    LEAF = "leaf"


@cache
def spec_fields() -> dict[Path, Kind]:
    """The dotted path of every key, and what stands below it; strategies are merged into one."""
    return dict(_walk(JobSpec, ()))


def keys_below(path: Path) -> list[str]:
    """The keys of a section, in the order of the models."""
    return [key[-1] for key in spec_fields() if len(key) == len(path) + 1 and key[:-1] == path]


def _walk(model: type[BaseModel], path: Path) -> Iterator[tuple[Path, Kind]]:
    for name, info in model.model_fields.items():
        here = (*path, name)
        parts = list(_flatten(info.annotation))
        sections = [part for part in parts if isinstance(part, type) and _is_model(part)]
        if sections:
            yield here, Kind.SECTION
            for section in sections:
                yield from _walk(section, here)
        elif any(get_origin(part) in (dict, list) for part in parts):
            yield here, Kind.OPEN
        else:
            yield here, Kind.LEAF


def _is_model(part: type) -> bool:
    return get_origin(part) is None and issubclass(part, BaseModel)


def _flatten(annotation: Any) -> Iterator[Any]:
    """The members of a union, through Annotated; dict[...] and list[...] stay whole."""
    if get_origin(annotation) in (dict, list):
        yield annotation
    elif args := get_args(annotation):
        members = args[:1] if hasattr(annotation, "__metadata__") else args
        for member in members:
            yield from _flatten(member)
    else:
        yield annotation
