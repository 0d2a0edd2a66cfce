"""Put README.md, docs/ and what they link to into a directory, as they lie in the tree: `site.py DIRECTORY`."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """The documents of the site."""
    patterns = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "clients/*/README.md")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def linked(page: Path) -> Iterator[Path]:
    """What a page links to within the tree."""
    for link in LINK.findall(page.read_text("utf-8")):
        path = link.partition("#")[0]
        if path and "://" not in path:
            yield (page.parent / path).resolve()


def assemble(target: Path) -> None:
    """Copy them; a directory that is linked to becomes a page that lists its files."""
    shutil.rmtree(target, ignore_errors=True)
    for page in pages():
        text = page.read_text("utf-8")
        for found in sorted(set(linked(page))):
            there = target / found.relative_to(ROOT)
            if found.is_dir():
                text = re.sub(
                    rf"\]\(((?:\.\./)*{re.escape(found.relative_to(ROOT).as_posix())})\)", r"](\1/index.md)", text
                )
                there.mkdir(parents=True, exist_ok=True)
                files = sorted(path for path in found.iterdir() if path.is_file())
                listed = [f"- [{path.name}]({path.name})" for path in files]
                (there / "index.md").write_text("\n".join([f"# {found.relative_to(ROOT)}", "", *listed, ""]), "utf-8")
                for path in files:
                    shutil.copy(path, there)
            elif found not in pages():
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, there)
        there = target / page.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text, "utf-8")


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
