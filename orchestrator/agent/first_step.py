"""How long ranks may be silent before their first step, by what their script does."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_LIBRARY = "orchestrator.training"
_STEP_FILE = "PTX_STEP_FILE"
_TIMES = 10
"""So many times `restart.hang_after` before the first step of a script that reports its own, ..."""
_LEAST = 1800.0
"""... but at least so many seconds: models are loaded and compiled then, and a collective in which
somebody is missing has timed out by itself."""
_LONGEST = 4 << 20
"""Bytes; what is longer is no script that somebody wrote."""


def silence_allowed(plan: Mapping[str, Any], after: float) -> float | None:
    """Seconds for which no rank may print before the first step; None for no limit.

    A script that knows nothing of ptx has `after`. One that touches PTX_STEP_FILE itself has
    longer. One on ptx's training library has no limit, since it may prepare data for hours without
    a word; what is no script that can be read is given the benefit of that.
    """
    text = _script(plan)
    if text is None:
        return None
    words = list(_words(text))
    if any(_is_library(word) for word in words):
        return None
    return max(_TIMES * after, _LEAST) if _STEP_FILE in words else after


def _script(plan: Mapping[str, Any]) -> bytes | None:
    words = map(str, plan.get("entrypoint") or ())
    name = next((word for word in words if word.endswith(".py")), None)
    if name is None:
        return None
    path = Path(str(plan.get("workdir") or ""), name)
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST)
    except OSError:
        return None


def _is_library(word: str) -> bool:
    return word == _LIBRARY or word.startswith(f"{_LIBRARY}.")


def _words(script: bytes) -> Iterator[str]:
    """Modules that it imports, and its strings: what stands in a comment or a docstring does
    nothing."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Of a newer Python than the agent's, perhaps: then every word counts.
        yield from (word for word in (_LIBRARY, _STEP_FILE) if word.encode() in script)
        return
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from () if id(node) in told else (node.value,)
