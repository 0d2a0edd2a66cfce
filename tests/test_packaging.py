"""What is built from the tree is whole, and works where nothing else of the tree is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gopush

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = {".py", ".lua", ".html", ".css", ".js", ".mjs", ".txt", ".thrift"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, which keeps what setuptools leaves behind."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("gopush", "twisted", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tree / "dist"), str(tree))
    (built,) = (tree / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    _pip("install", "--no-deps", "--target", str(target), str(wheel))
    return target


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def _python(installed: Path, *arguments: str) -> str:
    """Run Python on what was installed and what it depends on, but not on this tree: -S passes over its .pth file."""
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != ROOT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *elsewhere])}
    command = [sys.executable, "-S", *arguments]
    done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_all_of_gopush_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gopush").rglob("*")
        if path.suffix in SHIPPED or path.name == "py.typed"
    }
    assert found == tracked | {"twisted/plugins/gopush_plugins.py"}


def test_the_wheel_names_version_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = "".join(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        names = archive.namelist()
    assert f"\nVersion: {gopush.__version__}\n" in metadata
    assert "\nLicense: MIT\n" in metadata or "\nLicense-Expression: MIT\n" in metadata
    assert any(name.endswith("/LICENSE") for name in names)


def test_twistd_offers_the_roles(installed: Path) -> None:
    help_text = _python(installed, "-c", "from twisted.scripts.twistd import run; run()", "--help")
    offered = {line.split()[0]: line for line in help_text.splitlines() if line.startswith("    ")}
    assert {"comet", "message", "gopush-web", "gopush"} <= offered.keys()
    assert "web" in offered  # Twisted's own stays


def test_the_command_is_there(installed: Path) -> None:
    assert _python(installed, str(installed / "bin" / "gopush"), "--version") == f"gopush {gopush.__version__}\n"


def test_the_plugin_file_imports_nothing_of_gopush(installed: Path) -> None:
    """twistd reads it whatever it is asked to run."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print([m for m in sys.modules if m.startswith('gopush')])"
    assert _python(installed, "-c", code, str(installed / "twisted" / "plugins" / "gopush_plugins.py")) == "[]\n"


@pytest.mark.parametrize("module", ["comet.node", "message.node", "web.node", "embedded.node"])
def test_every_role_can_be_loaded(installed: Path, module: str) -> None:
    """Nothing that it imports was left behind; options and makeService are where twistd looks for them."""
    code = f"import gopush.{module} as m; print(m.Options().getUsage(), callable(m.makeService), m.__file__)"
    answer = _python(installed, "-c", code)
    assert "--config=" in answer
    assert f"True {installed}" in answer


def test_all_that_is_published_names_one_home() -> None:
    named = {
        "setup.cfg": r"^url = (\S+)$",
        "debian/control": r"^Homepage: (\S+)$",
        "clients/python/setup.cfg": r"^url = (\S+)$",
        "clients/js/package.json": r'^  "homepage": "(\S+)",$',
    }
    homes = {name: re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE) for name, pattern in named.items()}
    (home,) = homes["setup.cfg"]
    assert homes == {name: [home] for name in named}
    assert "example.org" not in home
    for client in ("js", "python"):
        assert f"[gopush]({home})" in (ROOT / "clients" / client / "README.md").read_text()
