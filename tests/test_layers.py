"""The layers of docs/architecture.md, "The house": imports point one way, and a backend has one package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "gopush").rglob("*.py")
}

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for pattern in ("docs/*.md", "*.md", "tests/*.md") for path in ROOT.glob(pattern)
)

MOST_LINES = 300

ROLES = ("gopush.comet", "gopush.message", "gopush.web")

PURE = (
    *("gopush.errors", "gopush.model", "gopush.hashing", "gopush.feed", "gopush.reports", "gopush.event_stream"),
    *("gopush.config.schema", "gopush.config.values", "gopush.config.endpoints", "gopush.net.timers"),
    *("gopush.net.http.request", "gopush.net.http.head", "gopush.stats.histogram", "gopush.stats.counting"),
    *("gopush.rpc.codec", "gopush.routing.router", "gopush.membership.debounce"),
    *("gopush.comet.channel", "gopush.comet.session", "gopush.comet.codec"),
    *(
        "gopush.message.rules",
        "gopush.message.original",
        "gopush.message.hbase.row",
        "gopush.web.params",
        "gopush.web.calls",
        "gopush.web.schemas",
    ),
)
"""No I/O and no clock: they import neither Twisted nor time, and time comes in as an argument."""

IMPURE = ("twisted", "time", "random", "secrets", "socket", "threading", "gopush.net.clock")

BACKENDS = {
    "kazoo": "gopush.membership",
    "txredisapi": "gopush.message.redis",
    "thriftpy2": "gopush.message.hbase",
    "sqlite3": "gopush.message.sqlite",
    "autobahn": "gopush.comet.websocket",
    "prometheus_client": "gopush.stats.prometheus",
}

LEVELS = (
    (
        "gopush.errors",
        "gopush.model",
        "gopush.hashing",
        "gopush.feed",
        "gopush.reports",
        "gopush.event_stream",
        "gopush",
    ),
    ("gopush.config",),
    ("gopush.net", "gopush.stats.histogram", "gopush.stats.counting", "gopush.stats.summary", "gopush.daemon"),
    ("gopush.stats",),
    ("gopush.rpc", "gopush.auth"),
    ("gopush.membership",),
    ("gopush.routing",),
    ("gopush.comet", "gopush.message", "gopush.web"),
    ("gopush.embedded",),
    ("gopush.client",),
    ("gopush.__main__",),
)
"""The rooms, the lowest first: who stands higher may import who stands lower, or beside it, never the other way."""


def within(module: str, room: str) -> bool:
    return module == room or (room != "gopush" and module.startswith(f"{room}."))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document: str) -> None:
    """Modules, scripts and tests by file name; CHANGELOG.md tells of what was."""
    text = (ROOT / document).read_text()
    tops = ("gopush", "tests", "bench", "clients", "twisted")
    there = {path.as_posix() for top in tops for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".lua")}
    named = set() if document == "CHANGELOG.md" else set(re.findall(r"[\w/-]+\.(?:py|lua)\b", text))
    assert not {name for name in named if not any(path.endswith(f"/{name.lstrip('/')}") for path in there)}


def level(module: str) -> int:
    """How high a module stands: by the longest name of a room that it is in."""
    return max((len(room), number) for number, rooms in enumerate(LEVELS) for room in rooms if within(module, room))[1]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


def names(module: str) -> Iterator[str]:
    """What a module imports, wherever in it that stands: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of gopush that a module imports."""
    found = set()
    for name in names(module):
        while name and name not in FILES:
            name = name.rpartition(".")[0]
        found.add(name)
    return frozenset(found - {"", module})


def test_every_module_is_in_a_room() -> None:
    assert len(FILES) > 100
    assert [module for module in FILES if not any(within(module, room) for rooms in LEVELS for room in rooms)] == []


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_point_down(module: str) -> None:
    assert [other for other in imports(module) if level(other) > level(module)] == []


def test_the_roles_never_import_each_other() -> None:
    for role in ROLES:
        others = tuple(other for other in ROLES if other != role)
        crossing = [
            (module, other)
            for module in FILES
            if within(module, role)
            for other in imports(module)
            if any(within(other, one) for one in others)
        ]
        assert crossing == []


def test_no_circle_of_imports() -> None:
    """Modules that import nothing else of gopush go, again and again; what is left stands in a circle."""
    left = {module: set(imports(module)) for module in FILES}
    while free := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in free}
    assert sorted(left) == []


def test_nothing_is_imported_for_types_alone() -> None:
    """That is how a circle hides."""
    assert [module for module in FILES if "typing.TYPE_CHECKING" in names(module)] == []


@pytest.mark.parametrize("module", PURE)
def test_the_core_is_pure(module: str) -> None:
    assert [name for name in names(module) if any(within(name, one) for one in IMPURE)] == []


def test_glue_stands_on_top() -> None:
    """A role's node composes it: nobody imports that but embedded, which composes all."""
    for role in ROLES:
        importing = {module for module in FILES if f"{role}.node" in imports(module)}
        assert importing == {"gopush.embedded.node"}
    assert {module for module in FILES if "gopush.embedded.node" in imports(module)} == set()


def test_only_nodes_touch_the_global_reactor() -> None:
    touching = {module for module in FILES if "twisted.internet.reactor" in names(module)}
    assert touching == {"gopush.embedded.node", *(f"{role}.node" for role in ROLES)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_is_imported_by_the_package_that_adapts_it(backend: str) -> None:
    importing = [module for module in FILES if any(within(name, backend) for name in names(module))]
    assert importing != []
    assert [module for module in importing if not within(module, BACKENDS[backend])] == []


if __name__ == "__main__":  # for make coverage
    print(",".join(str(FILES[module].relative_to(ROOT)) for module in PURE))


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_module_is_read_in_one_sitting(module: str) -> None:
    assert len(FILES[module].read_text().splitlines()) <= MOST_LINES
