"""tests/PROTOCOL.md: for every sentence of protocol.md, sections 1 to 9, the tests that hold it, and that name it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).resolve().parent
DOCS = TESTS.parent / "docs"
SECTIONS = range(1, 10)
HISTORY = "(history)"
"""In the place of tests: the words tell of the original, or why, and nothing of what gopush does."""


class Row(NamedTuple):
    sentence: str
    tests: list[str]


def plain(text: str) -> str:
    """Words and what stands between them, without headings, marks of tables and lists, and line breaks."""
    text = re.sub(r"^#.*$|^\|.*\|\n\|[-|]+\|$|^- ", "", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*differs\*\*:?", "", text, flags=re.IGNORECASE).replace("|", " ")
    return " ".join(text.split())


def section(text: str, number: int) -> str:
    return text.split(f"\n## {number}. ")[1].partition("\n")[2].split("\n## ")[0]


def rows(number: int) -> list[Row]:
    found = re.findall(
        r"^\| (.*) \| (.*) \|$", section((TESTS / "PROTOCOL.md").read_text("utf-8"), number), re.MULTILINE
    )
    return [Row(" ".join(sentence.split()), tests.split(", ")) for sentence, tests in found[1:]]


def named(test: str) -> str:
    """What names a test's section: its docstring and that of its module. Fails where there is no such test."""
    path, _, name = test.partition("::")
    module = ast.parse((TESTS / path).read_text("utf-8"))
    (function,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return f"{ast.get_docstring(module)}\n{ast.get_docstring(function)}"


@pytest.mark.parametrize("number", SECTIONS)
def test_every_sentence_has_its_row(number: int) -> None:
    """All words of the section stand in the table, in their order."""
    left = plain(section((DOCS / "protocol.md").read_text("utf-8"), number))
    for sentence, _ in rows(number):
        before, found, left = left.partition(sentence)
        assert found, sentence
        assert not re.search(r"\w", before), before
    assert not re.search(r"\w", left), left


@pytest.mark.parametrize("number", SECTIONS)
def test_every_test_of_the_table_exists_and_names_the_section(number: int) -> None:
    for _, tests in rows(number):
        for test in tests:
            if test != HISTORY:
                assert re.search(rf"protocol\.md.*\bsections? [0-9, and]*\b{number}\b(?!\.\d)", named(test)), test
