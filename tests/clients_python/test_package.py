"""The package of the Python client holds all of it, and says what it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from gopush_client import __version__

CLIENT = Path(__file__).resolve().parents[2] / "clients" / "python"


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(CLIENT, tree, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist"))
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir")
    command = [sys.executable, "-m", "pip", "wheel", *options, str(tmp_path / "dist"), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    files = {f"gopush_client/{path.name}" for path in (CLIENT / "gopush_client").iterdir() if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert "gopush_client/py.typed" in files
    assert any(name.endswith("/LICENSE") for name in names)
    for expected in ("Name: gopush-client", f"Version: {__version__}", "Requires-Python: >=3.11"):
        assert f"\n{expected}\n" in metadata
    assert "Requires-Dist" not in metadata
