"""The blocks of the documents, for tests that run them as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {"twistd": "twisted.scripts.twistd:run", "gopush": "gopush.__main__:main"}


def section(document: str, title: str) -> str:
    """What stands under a heading of the second level."""
    return (ROOT / document).read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(document: str, language: str, title: str = "") -> list[str]:
    """The fenced blocks of a language, in a section or in all of a document."""
    text = section(document, title) if title else (ROOT / document).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


class Shell:
    """Runs blocks in a directory, with this Python's gopush and twistd as its commands."""

    def __init__(self, directory: Path, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self.directory = directory
        self._environment = environment
        self._commands = directory / ".commands"
        self._commands.mkdir(parents=True, exist_ok=True)
        for name, target in COMMANDS.items():
            module, _, function = target.partition(":")
            command = self._commands / name
            command.write_text(
                f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            )
            command.chmod(0o755)

    def run(self, script: str) -> str:
        """What it prints. It must succeed, each of its commands."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self._command(script), **self._options, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, script: str, log: Path) -> subprocess.Popen[bytes]:
        """Start it; what it says goes into a file."""
        with log.open("wb") as out:
            return subprocess.Popen(self._command(script), **self._options, stdout=out, stderr=out)

    @property
    def _options(self) -> dict[str, Any]:
        path = f"{self._commands}:{os.environ['PATH']}"
        return {
            "cwd": self.directory,
            "env": {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **self._environment},
        }

    def _command(self, script: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", script]
