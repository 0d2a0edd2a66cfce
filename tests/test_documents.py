"""What the documents link to is there, in the tree and in the Debian package; each of their commands is run by a test
that they name, or they say why not; `make run` wants no tools for tests."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from gopush.client import cli

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/monitoring/*.md", "clients/*/*.md")
    for path in ROOT.glob(pattern)
)
MANUALS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/man/*"))
ELSEWHERE = ("LICENSE",)
"""Debian has it as copyright."""

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: str) -> list[str]:
    """Those into the tree."""
    return [link for link in LINK.findall((ROOT / document).read_text()) if "://" not in link]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_debian_package_carries_what_its_documents_link_to() -> None:
    carried = (ROOT / "debian" / "python3-gopush.docs").read_text().split()
    carried += [line.split()[0] for line in (ROOT / "debian" / "python3-gopush.install").read_text().splitlines()]
    there = [(ROOT / name).resolve() for name in carried]
    for document in DOCUMENTS:
        if not any((ROOT / document).is_relative_to(one) for one in there):
            continue
        for link in links(document):
            target = ((ROOT / document).parent / link.partition("#")[0]).resolve()
            if link.startswith("#") or target.name in ELSEWHERE:
                continue
            assert any(target.is_relative_to(one) for one in there), f"{document}: {link}"


FENCE = re.compile(r"(?:^<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"(?:run|read) by (\S+\.py)|not run: (.{10,})")
COMMANDS = (
    "make",
    "apt",
    "apt-get",
    "curl",
    "gopush",
    "twistd",
    "systemctl",
    "openssl",
    "redis-cli",
    "pip",
    "npm",
    "cd",
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_block_names_the_test_that_runs_it_or_says_why_none_does(document: str) -> None:
    """In a comment above it, and the test names the document."""
    for mark, language, block in FENCE.findall((ROOT / document).read_text()):
        where = f"{document}: the {language} block {block.splitlines()[0]!r}"
        found = MARK.fullmatch(mark)
        assert found, f'{where} has neither "run by TEST", "read by TEST" nor "not run: WHY" above it'
        if found[1]:
            assert (ROOT / found[1]).exists(), where
            assert f"{Path(document).name}" in (ROOT / found[1]).read_text(), f"{where}: {found[1]} does not name it"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_stand_in_fences(document: str) -> None:
    """Not in an indented block, which has no mark; those hold drawings, lines of logs and bytes."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"(?:^|\n)\n((?: {4}.*\n)+)", text)
    words = [
        line.split()[0].removeprefix(".venv/bin/") for block in indented for line in block.splitlines() if line.strip()
    ]
    assert not {word for word in words if word in COMMANDS}, document


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_command_understands_each_gopush_in_a_document(document: str) -> None:
    """Those in the text too: names of commands and options that are gone would stay unseen."""
    text = (ROOT / document).read_text()
    if document == "CHANGELOG.md":
        return
    lines = [line for *_, block in FENCE.findall(text) for line in re.sub(r"\\\n", "", block).splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    parser = cli._parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for line in lines:
        match = re.match(r"(?:\.venv/bin/)?gopush ([a-z].*)", line)
        if match is None:
            continue
        words = shlex.split(re.sub(r" [>|&].*", "", match[1]), comments=True)
        assert words[0] in commands.choices, f"{document}: {line}"
        options = commands.choices[words[0]]._option_string_actions
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options.keys(), f"{document}: {line}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="wants groff")
@pytest.mark.parametrize("page", MANUALS)
def test_nothing_is_wrong_with_a_manual_page(page: str) -> None:
    command = ["groff", "-mandoc", "-ww", "-z", "-Tutf8", str(ROOT / page)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stderr == ""


@pytest.mark.skipif(shutil.which("make") is None, reason="wants make")
def test_make_run_installs_what_running_needs_and_make_test_the_rest() -> None:
    """As if nothing was installed: `-W` takes setup.cfg for new, `-n` only says what would be done."""

    def would(target: str) -> str:
        command = ["make", "-n", "-W", "setup.cfg", target]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout

    for target in ("run", "venv"):
        assert re.findall(r"pip install .*-e (\S+)", would(target)) == ["."]
    assert re.findall(r"pip install .*-e (\S+)", would("test")) == [".", "'.[test,check]'"]


def test_the_readme_names_the_packages_that_make_test_installs() -> None:
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    named = set(re.split(r"[\s,.:]+", (ROOT / "README.md").read_text()))
    wanted = " ".join(re.findall(r"\$\(call debian,.*,([^,\n]*)\)$", recipe[1], re.MULTILINE)).split()
    assert len(wanted) > 10
    assert {package for package in wanted if not package.startswith("-")} <= named


FIELD = re.compile(r"\{[^}]*\}")
WARNINGS = ("warn", "error", "critical")
"""What is logged as a failure has a traceback, and one row for all."""


def fixed_words(format: str) -> list[str]:
    """The first words of each part that is the same in each line."""
    parts = [part.strip(" :;,").split()[:4] for part in FIELD.split(format)]
    return [" ".join(words) for words in parts if len(words) > 1]


@pytest.mark.parametrize("module", sorted((ROOT / "gopush").rglob("*.py")), ids=lambda path: path.stem)
def test_the_operations_manual_explains_each_warning(module: Path) -> None:
    manual = (ROOT / "docs" / "operations.md").read_text()
    for call in ast.walk(ast.parse(module.read_text())):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in WARNINGS):
            continue
        formats = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        for format in formats:
            assert isinstance(format, str)
            words = fixed_words(format)
            assert not words or any(some in manual for some in words), f"{module.name}:{call.lineno}: {format}"
