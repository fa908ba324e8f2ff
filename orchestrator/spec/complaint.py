"""What pydantic has to say about one value of the spec, gathered."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from orchestrator.spec.locate import Place

SECTION = "a section with keys of its own"
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": SECTION,
    "model_attributes_type": SECTION,
    "path_type": "a path",
    "none_required": "empty",
}
"""pydantic's kinds of error, as what should have stood there."""


@dataclass
class Complaint:
    """What pydantic says of one place; a union says it once for each of its members."""

    place: Place
    first: Any
    expected: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)

    def add(self, error: Any) -> None:
        if error["type"] in EXPECTED:
            self.expected.append(EXPECTED[error["type"]])
        elif error["type"] in ("literal_error", "enum"):
            self.choices += re.findall(r"'([^']*)'", error["ctx"]["expected"]) or re.findall(
                r"\w+", error["ctx"]["expected"].replace(" or ", " ")
            )
        elif self.first["type"] in EXPECTED or self.first["type"] == "literal_error":
            # A member of the union that took the type and refused the value says more.
            self.first = error
