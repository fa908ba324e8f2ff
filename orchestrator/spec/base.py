"""What every model of the spec shares."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orchestrator.spec.words import shown


class Model(BaseModel):
    """Strict (`true` is not 1), closed (unknown keys are errors) and immutable.

    `defer_build`: without it every section would build a validator of its own at import.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Refused(ValueError):
    """A value that a validator does not accept: what is wrong, and the way out."""

    def __init__(self, problem: str, way_out: str) -> None:
        super().__init__(f"{problem}; {way_out}")
        self.problem = problem
        self.way_out = way_out


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAMED = {"\n": "a line break", "\r": "a carriage return", "\t": "a tab", "\0": "a NUL byte"}


def _printable(text: str) -> str:
    match = _CONTROL.search(text)
    if match:
        what = _NAMED.get(match[0], f"the control character U+{ord(match[0]):04X}")
        raise Refused(
            f"{shown(text)} has {what} at character {match.start() + 1}",
            "no shell, log or terminal carries control characters faithfully; remove it",
        )
    return text


def matching(pattern: str, problem: str, way_out: str) -> AfterValidator:
    """The whole text must match `pattern`."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise Refused(f"{shown(text)} {problem}", way_out)
        return text

    return AfterValidator(check)


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"

Name = Annotated[
    str,
    matching(
        NAME,
        "cannot be a name",
        "use up to 63 letters, digits, dots, dashes and underscores, a letter or digit first",
    ),
    Field(json_schema_extra={"pattern": f"^{NAME}$"}),
]
EnvName = Annotated[
    str,
    matching(
        ENV_NAME,
        "cannot be the name of an environment variable",
        "use letters, digits and underscores, no digit first",
    ),
    Field(json_schema_extra={"pattern": f"^{ENV_NAME}$"}),
]
# Any text that can be an argument or a value: all but NUL and other control characters,
# which no shell script, log or terminal carries faithfully. Newline and tab are refused too.
Text = Annotated[
    str,
    AfterValidator(_printable),
    Field(json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"}),
]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# A share of one: dropout, a decay rate.
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
