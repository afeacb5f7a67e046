"""Which private names of Optuna a module uses, read from its source."""

import ast
import inspect
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import tuner

PACKAGE = Path(tuner.__file__).parent
MAY_USE_THEM = ("search/optuna_tables.py", "search/optuna_tpe.py")
"""The modules that may use private names: of Optuna's storage, and of its sampler."""


def private_names(tree: ast.Module) -> set[str]:
    """Private names of Optuna in a module: imported, taken from an object, or replaced in a class of its own."""
    return {*_imported(tree), *_taken(tree), *_replaced(tree)}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "optuna":
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "optuna"]
        else:
            continue
        private = [name for name in names if any(map(_is_private, name.split(".")))]
        yield from [min(private, key=len)] if private and private[0] == names[0] else private


def _taken(tree: ast.Module) -> Iterator[str]:
    """`trial._x`, but for names that this package defines, which are then its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not _is_self(node.value) and node.attr in PRIVATE - OWN:
            yield node.attr


def _replaced(tree: ast.Module) -> Iterator[str]:
    """Methods and attributes that a class of a public class of Optuna shares with it."""
    imported = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "optuna"
        for alias in node.names
    }
    for node in (one for one in ast.walk(tree) if isinstance(one, ast.ClassDef)):
        for base in map(ast.unparse, node.bases):
            module = "optuna" if base.startswith("optuna.") else imported.get(base)
            if module is None:
                continue
            theirs: object = import_module(module)
            for part in base.removeprefix("optuna.").split("."):
                theirs = getattr(theirs, part)
            assert isinstance(theirs, type)
            of_base = _names_of(theirs)
            yield from {name for name in _defined(node) | _of_self(node) if name in of_base}


def _names_of(theirs: type) -> set[str]:
    """The private names of a class of Optuna and of those that it derives from, attributes of its objects included."""
    classes = [one for one in theirs.__mro__ if one.__module__.startswith("optuna")]
    trees = [ast.parse(inspect.getsource(inspect.getmodule(one))) for one in classes]  # type: ignore[arg-type]
    nodes = [
        node
        for one, tree in zip(classes, trees, strict=True)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == one.__name__
    ]
    return {name for node in nodes for name in _defined(node) | _of_self(node)}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _defined(tree: ast.AST) -> set[str]:
    """Private functions, classes and variables of a module or a class."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return set(filter(_is_private, names))


def _of_self(tree: ast.AST) -> set[str]:
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_self(node.value)}
    return set(filter(_is_private, found))


def _private_in(paths: Iterable[Path]) -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    return {name for tree in trees for name in _defined(tree) | _of_self(tree)}


SPEC = find_spec("optuna")
assert SPEC is not None
assert SPEC.origin is not None
PRIVATE = _private_in(Path(SPEC.origin).parent.rglob("*.py"))
OWN = _private_in(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in MAY_USE_THEM)
