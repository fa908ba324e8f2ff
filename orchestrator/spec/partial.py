"""The sound part of a broken spec, so that all that is wrong can be said at once."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from orchestrator.spec.compose import Mapping, plain_value
from orchestrator.spec.fields import keys_below
from orchestrator.spec.job import JobSpec
from orchestrator.spec.locate import Location, locate
from orchestrator.spec.words import closest

_PLACEHOLDERS = {"name": "name", "entrypoint": {"command": ["true"]}}


def sound_part(root: Mapping, errors: list[Any]) -> tuple[JobSpec, set[Location]]:
    """A valid spec without the keys that `errors` complain of, and the paths not to be trusted.

    A path is not to be trusted where its value was left out, or where an unknown key beside
    it may have been meant for it.
    """
    data = plain_value(root)
    broken: set[Location] = set()
    for error in errors:
        path = _path(root, error)
        broken.add(_suspect(path) if error["type"] == "extra_forbidden" else path)
        _remove(data, path)
    try:
        return JobSpec.model_validate(_PLACEHOLDERS | data), broken
    except ValidationError as again:
        # A section that cannot stand without what was wrong in it goes as a whole.
        sections = {error["loc"][0] for error in again.errors(include_url=False)}
    broken |= {(section,) for section in sections}
    data = {key: value for key, value in data.items() if key not in sections}
    return JobSpec.model_validate(_PLACEHOLDERS | data), broken


def _path(root: Mapping, error: Any) -> Location:
    location = error["loc"]
    if error["type"] == "missing":
        return (*locate(root, location[:-1]).path, location[-1])
    return locate(root, location).path


def _suspect(path: Location) -> Location:
    """What an unknown key casts doubt on: the key it looks like, else its whole section."""
    *section, key = (str(part) for part in path)
    if match := closest(key, keys_below(tuple(section))):
        return (*section, match)
    return tuple(section) or path


def _remove(data: Any, path: Location) -> None:
    """Take out the value at `path`; an item of a list takes the whole list with it."""
    keys: list[str] = []
    for part in path:
        if isinstance(part, int):
            break
        keys.append(part)
    for key in keys[:-1]:
        data = data.get(key) if isinstance(data, dict) else None
    if keys and isinstance(data, dict):
        data.pop(keys[-1], None)
