"""One word for one thing (CONTRIBUTING.md, "Words"): no identifier bears a word that another has replaced."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "gopush").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])

REPLACED = {
    "wish": "request",
    "wishes": "requests",
    "entry": "pending calls, or record",
    "entries": "pending calls, or records",
    "lane": "batcher",
    "lanes": "batchers",
    "suspect": "health checker",
    "suspects": "health checker",
    "adoption": "debouncer",
    "notice": "forward",
    "notices": "forwards",
    "member": "node",
    "members": "nodes; of JSON: properties",
    "distribution": "histogram",
    "distributions": "histograms",
    "gate": "limiter",
    "gates": "limiters",
    "gated": "limited",
    "spend": "take",
    "spent": "taken",
    "endings": "disconnects",
    "upkeep": "housekeeping",
    "joining": "recovering",
    "recent": "replay",
    "watched": "tracked, or a reloading file",
    "totals": "summary",
    "told": "reported, logged, sent",
    "tame": "freeze",
    "places": "indexes",
}

CLASSES = {
    *("Wish", "Entry", "Lane", "Choices", "Suspects", "Adoption", "Notice", "Member", "Distribution", "Role"),
    *("Gate", "Endings", "Ending", "Later", "Upkeep", "Slow", "Behind", "Slowest", "Joining", "Recent"),
    *("Watched", "Totals", "Garbage", "Place", "Told"),
}
"""Words that are English elsewhere, but no longer the name of a class."""

PUBLIC = {
    "lane_messages": "[rpc] lane.num, and a key of /stat",
    "lane_bytes": "[rpc] lane.size, and a key of /stat",
    "notices_sent": "a counter of /stat and /metrics",
    "notices_received": "a counter of /stat and /metrics",
    "member": "of a sorted set: Redis's own word",
    "members": "of a sorted set: Redis's own word",
}

TWICE = {
    "Options": "twistd looks for it by that name, in the module of each role",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def identifiers(path: Path) -> frozenset[str]:
    return frozenset(_identifiers(path))


def _identifiers(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.arg, ast.keyword)):
            yield node.arg or ""
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).rpartition(".")[2]
    yield path.stem


def words(identifier: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)]


def test_no_identifier_bears_an_old_word() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}: {word}, now {REPLACED[word]}"
        for path in FILES
        for name in identifiers(path)
        if name not in PUBLIC
        for word in words(name)
        if word in REPLACED
    }
    assert sorted(found) == []


def test_no_class_bears_an_old_name() -> None:
    classes = {node.name for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)}
    assert len(classes) > 300
    assert classes & CLASSES == set()


def test_no_name_of_a_class_means_two_things() -> None:
    where = defaultdict(set)
    for path in (ROOT / "gopush").rglob("*.py"):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                where[node.name].add(str(path.relative_to(ROOT)))
    assert {name: sorted(paths) for name, paths in where.items() if len(paths) > 1 and name not in TWICE} == {}


def test_exceptions_are_needed_and_listed() -> None:
    every = {name for path in FILES for name in identifiers(path)}
    assert every >= PUBLIC.keys() | TWICE.keys()
    written = (ROOT / "CONTRIBUTING.md").read_text()
    assert [name for name in (*PUBLIC, *TWICE) if f"`{name}`" not in written] == []


REFERENCE = re.compile(r"[Ss]ee (?:the )?((?:[a-z_]+\.)+[A-Za-z_]+)")


def test_what_a_docstring_names_is_there() -> None:
    """ "See net.http.request.Paged": a module and a name of gopush; other libraries are not looked at."""
    rooms = {path.stem for path in (ROOT / "gopush").iterdir()}
    for path in FILES:
        for name in REFERENCE.findall(path.read_text()):
            module, _, thing = name.rpartition(".")
            if module.partition(".")[0] in rooms:
                source = ROOT / "gopush" / (module.replace(".", "/") + ".py")
                assert source.exists(), f"{path.relative_to(ROOT)}: there is no {name}"
                assert re.search(rf"^(class|def|async def) {thing}\b|^{thing}\b", source.read_text(), re.M), name
