"""`debian/rules` needs no more of Python than `debian/control` says; `packaging/build` builds what belongs to the tree,
as a version of its own for each commit: there scripts play the tools that build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "autobahn": "python3-autobahn",
    "hypothesis": "python3-hypothesis",
    "jwt": "python3-jwt",
    "kazoo": "python3-kazoo",
    "msgpack": "python3-msgpack",
    "prometheus_client": "python3-prometheus-client",
    "pytest": "python3-pytest",
    "thriftpy2": "python3-thriftpy2",
    "twisted": "python3-twisted",
    "txredisapi": "python3-txredisapi",
}


def test_the_checks_of_a_build_need_only_what_it_depends_on(tmp_path: Path) -> None:
    needed = (ROOT / "debian" / "control").read_text().partition("\nStandards-Version")[0]
    named = re.findall(r"^ (python3-[^ ,]+)", needed, re.MULTILINE)
    missing = [module for module, package in PACKAGES.items() if package not in named]
    tree = tmp_path / "tree"
    for name in ("debian", "docs", "etc", "gopush", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({missing}))\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the python3 that has the libraries
    done = subprocess.run(
        ["make", "-s", "-f", "debian/rules", "execute_after_dh_auto_build", "override_dh_auto_test"],
        cwd=tree,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path), "DEB_BUILD_OPTIONS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


FAKES = {
    "dpkg-checkbuilddeps": "",
    "dpkg-parsechangelog": "",
    # What pip would download. The last word is where to.
    "python3": "for out; do :; done; for name in txredisapi thriftpy2; do "
    'tar -czf "$out/$name-1.tar.gz" -T /dev/null; done',
    "dpkg-buildpackage": '{ head -n 1 debian/changelog; find . -type f; } >"../$(basename "$PWD").deb"',
}
LEFT = (".venv/pyvenv.cfg", "build/lib.py", "dist/old.whl", "var/gopush.sqlite")
KEPT = ("gopush/var/kept.py", "new.py")
"""The second is not committed yet."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("debian", "packaging"):
        shutil.copytree(ROOT / name, tree / name)
    for name in (*LEFT, *KEPT):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    shutil.copy(ROOT / ".gitignore", tree)
    build = tree / "packaging" / "build"
    text = build.read_text()
    assert "PATH=/usr/sbin:" in text
    build.write_text(text.replace("PATH=/usr/sbin:", f"PATH={tmp_path}/tools:/usr/sbin:"))
    (tmp_path / "tools").mkdir()
    for name, words in FAKES.items():
        (tmp_path / "tools" / name).write_text(f"#!/bin/sh\n{words}\n")
        (tmp_path / "tools" / name).chmod(0o755)
    return tree


def built(tree: Path, **environment: str) -> tuple[str, list[str]]:
    """The version, and the files it was built of."""
    done = subprocess.run(
        [tree / "packaging" / "build", tree / "dist"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    head, *files = (tree / "dist" / "gopush.deb").read_text().splitlines()
    return head.partition("(")[2].partition(")")[0], [name.removeprefix("./") for name in files]


def git(tree: Path, *words: str, date: str = "2026-03-02T12:00:00+0000") -> None:
    who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    subprocess.run(["git", *words], cwd=tree, env=os.environ | who | dates, check=True, timeout=60)


def committed(tree: Path, date: str) -> None:
    git(tree, "add", "debian")
    git(tree, "commit", "-q", "--allow-empty", "-m", "one", date=date)


def test_each_commit_has_a_version_above_those_before_it(tree: Path) -> None:
    git(tree, "init", "-q")
    versions = []
    for date in ("2026-03-02T21:00:00+0900", "2026-03-02T12:00:01+0000", "2026-03-02T11:00:02-0100"):
        committed(tree, date)
        versions.append(built(tree)[0])
    assert versions[0].startswith("0.1.0+git20260302120000.")
    for older, newer in pairwise(["0.1.0", *versions, "0.1.1"]):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)
    git(tree, "tag", "v0.1.0")
    assert built(tree)[0] == "0.1.0"


def test_a_tree_of_another_user_is_built(tree: Path) -> None:
    git(tree, "init", "-q")
    committed(tree, "2026-03-02T12:00:00+0000")
    version, files = built(tree, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert version.startswith("0.1.0+git20260302120000.")
    assert {"new.py", "debian/control", "packaging/build"} <= set(files)
    assert not {*LEFT, ".git/HEAD"} & set(files)


def test_a_tree_without_git_is_built_as_it_is(tree: Path) -> None:
    version, files = built(tree)
    assert version == "0.1.0"
    assert {*KEPT, "debian/control", "packaging/build"} <= set(files)
    assert not set(LEFT) & set(files)


def test_where_git_cannot_list_the_tree_the_build_says_so_and_ends(tree: Path) -> None:
    (tree / ".git").write_text("gitdir: nowhere\n")
    with pytest.raises(AssertionError, match=r"^git cannot say what belongs to .*: fatal: .*nowhere\n"):
        built(tree)
