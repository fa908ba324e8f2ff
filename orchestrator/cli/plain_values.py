"""Options that were not given, and those that are plain text, without pydantic.

Typer builds a validator of pydantic for every option of a command, also where there is nothing to
validate, and importing pydantic takes as long as all else that `ptx status` does.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return [_sparing(parameter) for parameter in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return [_sparing(parameter) for parameter in super().get_params(ctx)]


def _sparing(parameter: Any) -> Any:
    """`parameter`, which has its validator built when there is a value that needs one."""
    if "process_value" in vars(parameter):
        return parameter
    validated = parameter.process_value
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    several = getattr(parameter, "multiple", False) or parameter.nargs == -1

    def process_value(context: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            plain: Any = () if several else None
        elif kind is str and not several and _is_plain(value):
            plain = value
        elif kind == list[str] and value and all(map(_is_plain, value)):
            plain = list(value)
        else:
            return validated(context, value)
        return (
            plain if parameter.callback is None else parameter.callback(context, parameter, plain)
        )

    parameter.process_value = process_value
    return parameter


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and value.isascii()
