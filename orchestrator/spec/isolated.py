"""Evaluate one class of a script without running the script.

Only what the class refers to by name is evaluated with it: imports from a few modules that do
nothing at import, plain assignments, and other classes. Everything else a name could stand for
is absent, so that a class which needs it fails with NameError instead of having an effect.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import importlib
import sys
from types import ModuleType
from typing import Any

_MODULE = "_ptx_isolated"
_IMPORTABLE = frozenset(
    {
        "annotated_types",
        "collections",
        "collections.abc",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "math",
        "pathlib",
        "pydantic",
        "re",
        "string",
        "typing",
        "typing_extensions",
    }
)
# All that a class body needs; nothing that reads, writes, imports or evaluates.
_BUILTINS = (
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "Ellipsis",
    "Exception",
    "False",
    "IndexError",
    "KeyError",
    "LookupError",
    "None",
    "NotImplemented",
    "NotImplementedError",
    "OverflowError",
    "RuntimeError",
    "True",
    "TypeError",
    "ValueError",
    "ZeroDivisionError",
    "__build_class__",
    "abs",
    "all",
    "any",
    "bool",
    "bytes",
    "callable",
    "classmethod",
    "complex",
    "dict",
    "divmod",
    "enumerate",
    "filter",
    "float",
    "format",
    "frozenset",
    "hash",
    "int",
    "isinstance",
    "issubclass",
    "iter",
    "len",
    "list",
    "map",
    "max",
    "min",
    "next",
    "object",
    "ord",
    "pow",
    "property",
    "range",
    "repr",
    "reversed",
    "round",
    "set",
    "slice",
    "sorted",
    "staticmethod",
    "str",
    "sum",
    "super",
    "tuple",
    "type",
    "zip",
)


class CannotEvaluate(Exception):
    """The class needs something that is not evaluated here; says what."""


def evaluate_class(tree: ast.Module, name: str) -> Any:
    """The class `name` of the module, or None where it has none. Raises CannotEvaluate."""
    if not any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
        return None
    module = ModuleType(_MODULE)
    module.__dict__["__builtins__"] = {key: getattr(builtins, key) for key in _BUILTINS}
    body: list[ast.stmt] = []
    for node in _needed(tree, name):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _import(node, module.__dict__)
        else:
            body.append(node)
    code = compile(
        ast.Module(body, []), f"<{name}>", "exec", flags=_future_flags(tree), dont_inherit=True
    )
    # pydantic looks up the names in annotations through sys.modules.
    sys.modules[_MODULE] = module
    try:
        exec(code, module.__dict__)  # noqa: S102 - class bodies alone, see above
        found = module.__dict__[name]
        if hasattr(found, "model_rebuild"):
            found.model_rebuild(_types_namespace=module.__dict__)
    except Exception as error:  # a class body may raise anything
        raise CannotEvaluate(f"{type(error).__name__}: {error}") from None
    finally:
        del sys.modules[_MODULE]
    return found


def _needed(tree: ast.Module, name: str) -> list[ast.stmt]:
    """The statements that define `name` and what it refers to, in the order of the script."""
    definitions: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        for defined in _defines(node):
            definitions.setdefault(defined, []).append(node)
    needed: set[int] = set()
    wanted = [name]
    seen: set[str] = set()
    while wanted:
        current = wanted.pop()
        if current in seen:
            continue
        seen.add(current)
        for node in definitions.get(current, ()):
            needed.add(id(node))
            if not isinstance(node, ast.Import | ast.ImportFrom):
                wanted += _refers(node)
    return [node for node in tree.body if id(node) in needed]


def _defines(node: ast.stmt) -> list[str]:
    """Names bound by a statement that may be evaluated."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(alias.asname or alias.name).split(".")[0] for alias in names]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            return [name]
    return []


def _refers(node: ast.stmt) -> list[str]:
    names = []
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            names.append(part.id)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            names += _names_in_annotation(part.value)
    return names


def _names_in_annotation(text: str) -> list[str]:
    """Annotations may be strings; text that is no expression refers to nothing."""
    if len(text) > 200:
        return []
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return []
    return [part.id for part in ast.walk(tree) if isinstance(part, ast.Name)]


def _import(node: ast.Import | ast.ImportFrom, namespace: dict[str, Any]) -> None:
    """Bind the names of an import from a module that is known to do nothing; skip others."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name in _IMPORTABLE:
                module = importlib.import_module(alias.name)
                top = alias.asname or alias.name.split(".")[0]
                namespace[top] = module if alias.asname else sys.modules[top]
    elif node.module in _IMPORTABLE and not node.level:
        module = importlib.import_module(node.module)
        for alias in node.names:
            if hasattr(module, alias.name):
                namespace[alias.asname or alias.name] = getattr(module, alias.name)


def _future_flags(tree: ast.Module) -> int:
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags
