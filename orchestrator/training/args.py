"""An entrypoint's arguments: a pydantic model, read from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from orchestrator.errors import UserError

M = TypeVar("M", bound=BaseModel)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint="--help lists the arguments")


def parse_args(model: type[M], argv: Sequence[str], *, description: str | None = None) -> M:
    """Fill `model` from `--key=value`, `--flag`, `--no-flag` and `--key a b` (lists).

    These are the forms into which ptx turns a spec's entrypoint.args. Dashes and underscores in
    names are the same. Field descriptions become --help. Raises UserError, naming every argument
    that is wrong.
    """
    parser = _Parser(description=description, allow_abbrev=False)
    for name, field in model.model_fields.items():
        _add(parser, name, field)
    given = parser.parse_args(argv)
    try:
        return model.model_validate(vars(given))
    except ValidationError as error:
        problems = "; ".join(
            f"--{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise UserError(problems, hint="--help lists the arguments") from error


def _add(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    # Both spellings; a set would lose the order that --help shows.
    flags = list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))
    default = "required" if field.is_required() else f"default: {field.get_default()!r}"
    text = f"{field.description or ''} ({default})".strip().replace("%", "%%")
    kinds = {field.annotation, *get_args(field.annotation)}
    if bool in kinds:
        parser.add_argument(
            *flags,
            dest=name,
            help=text,
            default=argparse.SUPPRESS,
            action=argparse.BooleanOptionalAction,
        )
    elif list in {get_origin(kind) or kind for kind in kinds}:
        parser.add_argument(
            *flags, dest=name, help=text, default=argparse.SUPPRESS, nargs="*", metavar="VALUE"
        )
    else:
        parser.add_argument(
            *flags, dest=name, help=text, default=argparse.SUPPRESS, metavar="VALUE"
        )
