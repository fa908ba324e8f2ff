"""Where merged lines go: a descriptor, and how text becomes its bytes."""

from __future__ import annotations

import os
from typing import NamedTuple

_ASCII = "".join(map(chr, range(0x20, 0x7F))) + "\t\n"
"""Some encodings keep all of it but a backslash or a tilde."""


class Output(NamedTuple):
    descriptor: int
    encoding: str = "utf-8"
    errors: str = "strict"

    @property
    def keeps_ascii(self) -> bool:
        """Whether ASCII text is written as it is, as by UTF-8 and not by UTF-16."""
        return self.encode(_ASCII) == _ASCII.encode()

    def encode(self, text: str) -> bytes:
        return text.encode(self.encoding, self.errors)

    def write(self, data: bytes | memoryview) -> None:
        """All of it. Raises OSError."""
        write_all(self.descriptor, data)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
