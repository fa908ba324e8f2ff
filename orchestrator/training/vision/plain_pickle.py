"""Reads the one kind of pickle that CIFAR-10 is published as, and can build nothing else.

Python's unpickler imports and calls whatever a file names. This one knows a few names, which
stand for stand-ins of its own: a file made by others can make no more than bytes, text, numbers,
lists, dicts and arrays of bytes.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from orchestrator.errors import UserError


class _Type:
    """Stands for numpy.dtype."""

    def __init__(self, name: object = None, *_: object) -> None:
        self.name = name.decode("ascii", "replace") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: of no concern to single bytes."""


class _Array:
    """Stands for numpy.ndarray; holds its bytes until `plain` makes a tensor of them."""

    tensor: torch.Tensor | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _Type(name="u1"), False | 0, bytes(raw)):
                flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
                self.tensor = flat.view([int(size) for size in shape])
            case _:
                raise pickle.UnpicklingError("it holds an array that is not of bytes")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object = "latin1", *_: object) -> bytes:
    """Stands for _codecs.encode, through which Python 3 writes bytes into such a file."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("it holds text in an encoding that bytes are not kept in")
    return text.encode("latin1")


_KNOWN = {
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which data has no need of"
            ) from None


def read_plain_pickle(path: Path) -> dict[bytes, Any]:
    """The dict in a file as Python 2 wrote it: keys are bytes; arrays of bytes become uint8
    tensors. Raises UserError where the file cannot be read or holds anything else."""
    try:
        with path.open("rb") as file:
            found = _PlainUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except _DAMAGED as error:
        raise UserError(f"{path} is no pickle of plain data: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no pickle of a dict")
    return {
        key: value.tensor if isinstance(value, _Array) else value for key, value in found.items()
    }


# What damaged bytes make the unpickler raise.
_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
