"""What the documents link to is there, in the tree and in the Debian package; `make run` wants no tools for tests."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/monitoring/*.md", "clients/*/*.md")
    for path in ROOT.glob(pattern)
)
ELSEWHERE = ("LICENSE", "CHANGELOG.md")
"""Debian has them as copyright and changelog.gz."""

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


@pytest.mark.skipif(shutil.which("make") is None, reason="wants make")
def test_make_run_installs_what_running_needs_and_make_test_the_rest() -> None:
    """As if nothing was installed: `-W` takes setup.cfg for new, `-n` only says what would be done."""

    def would(target: str) -> str:
        command = ["make", "-n", "-W", "setup.cfg", target]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout

    assert re.findall(r"pip install .*-e (\S+)", would("run")) == ["."]
    assert re.findall(r"pip install .*-e (\S+)", would("test")) == [".", "'.[test,check]'"]
