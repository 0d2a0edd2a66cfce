"""docs/architecture.md lists each private name of a library that gopush touches."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gopush

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text().partition("## What we touch inside libraries")[2]
PUBLIC = {"_asdict", "_replace", "_exit", "_Hash", "_abc_impl"}
"""Documented, in spite of their underscore; a type of hashlib's that has no other name; and what abc sets."""

KNOWN = {"gopush", *sys.stdlib_module_names}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted((ROOT / "gopush").rglob("*.py"))}


def own_names() -> Iterator[str]:
    """What gopush itself defines or sets."""
    for node in (node for tree in trees().values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def used_names() -> Iterator[tuple[str, str]]:
    own = set(own_names())
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
                yield str(path.relative_to(ROOT / "gopush")), node.attr


def private_modules() -> Iterator[tuple[str, str]]:
    for path, tree in trees().items():
        for node in ast.walk(tree):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and any(map(is_private, module.split("."))) and isinstance(node, ast.ImportFrom):
                yield from ((str(path.relative_to(ROOT / "gopush")), alias.name) for alias in node.names)


def overridden_names() -> Iterator[tuple[str, str]]:
    """What a class of gopush has in the place of a library's."""
    for found in pkgutil.walk_packages(gopush.__path__, "gopush."):
        if found.name.endswith("__main__"):
            continue
        for one in vars(importlib.import_module(found.name)).values():
            if inspect.isclass(one) and one.__module__ == found.name:
                read = set(re.findall(r"self\.(_\w+)", inspect.getsource(one)))
                bases = [base for base in one.__mro__ if base.__module__.partition(".")[0] not in KNOWN]
                for name in filter(is_private, vars(one).keys() | read):
                    if any(name in vars(base) for base in bases):
                        yield found.name, name


@pytest.mark.parametrize("names", [used_names, private_modules, overridden_names])
def test_each_private_name_of_a_library_stands_on_the_page(names: object) -> None:
    assert callable(names)
    touched = {(where, name) for where, name in names() if name not in PUBLIC}
    assert touched
    assert sorted((where, name) for where, name in touched if not re.search(rf"\b{name}\b", PAGE)) == []
