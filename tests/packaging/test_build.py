"""`debian/rules` needs no more of Python than `debian/control` says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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
