"""What `make site` gives to mkdocs: every document is in its list, and what it links to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.test_documents import DOCUMENTS, LINK, ROOT

CONFIGURATION = (ROOT / "packaging" / "mkdocs.yml").read_text()


def test_every_document_is_a_page_and_none_links_into_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "packaging" / "site.py", tmp_path / "pages"], timeout=60, check=True)
    listed = re.findall(r"^ +- .*: (\S+\.md)$", CONFIGURATION, re.MULTILINE)
    assert sorted(listed) == sorted(DOCUMENTS), "packaging/mkdocs.yml lists the pages under `nav`"
    for page in (tmp_path / "pages").rglob("*.md"):
        for link in LINK.findall(page.read_text()):
            path = link.partition("#")[0]
            if path and "://" not in path:
                target = page.parent / path
                assert target.is_file(), f"{page.name}: {link}"  # a web server shows no directories
                assert target.resolve().is_relative_to(tmp_path.resolve()), link


def test_the_site_loads_nothing_from_elsewhere_and_is_strict() -> None:
    assert "highlightjs: false" in CONFIGURATION
    assert "strict: true" in CONFIGURATION
