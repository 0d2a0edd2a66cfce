"""Jars that a test needs and Debian lacks: Maven fetches them once."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path


def jars(pom: Path, name: str, variable: str) -> Path:
    """The folder with the dependencies of a pom, `name` in the cache, or what a variable of the environment says.

    Raises where they cannot be had.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = Path(os.environ.get(variable, cache / "gopush" / name))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_suffix(".part")
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={part}"]
            subprocess.run(["mvn", "-B", "-q", "-f", str(pom), *goal], check=True)
            part.rename(folder)
    return folder
