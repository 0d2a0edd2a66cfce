"""docs/security.md: each door has tests for a stranger, for the right holder, and for certificates that are wrong."""

from __future__ import annotations

import re

from tests.test_protocol import DOCS, named

TEST = re.compile(r"[\w/]+\.py::\w+")


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def test_every_door_has_its_tests() -> None:
    text = (DOCS / "security.md").read_text("utf-8")
    doors, shown = map(cells, re.findall(r"\| door \|.*?\n\n", text, re.DOTALL))
    assert len(doors) == 8
    assert [row[0] for row in shown] == [re.sub(r" \([0-9, ]+(;.*)?\)", "", row[0]) for row in doors]
    for _, stranger, *others in shown:
        assert TEST.search(stranger)
        for cell in others:
            assert TEST.search(cell) or cell in ("as beside", "as for comet TCP")
    for test in TEST.findall(text):
        assert named(test)


def test_every_bound_has_a_test() -> None:
    text = (DOCS / "security.md").read_text("utf-8")
    (table,) = re.findall(r"\| what \| setting .*?\n\n", text, re.DOTALL)
    for row in cells(table):
        assert len(row) == 5, row
        files = re.findall(r"[\w/]+\.py", row[-1])
        assert files, row[0]
        for file in files:
            assert (DOCS.parent / "tests" / file).exists(), file
