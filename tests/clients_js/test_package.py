"""The package for npm holds what it promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import gopush

CLIENT = Path(__file__).resolve().parents[2] / "clients" / "js"
PACKAGE = json.loads((CLIENT / "package.json").read_text())
ALWAYS = {"package.json", "README.md", "LICENSE"}


def paths(value: object) -> set[str]:
    """All files that `exports` names."""
    return {value} if isinstance(value, str) else {path for each in value.values() for path in paths(each)}  # type: ignore[attr-defined]


def test_it_names_files_that_are_there_and_has_no_dependencies() -> None:
    named = {PACKAGE["main"], PACKAGE["module"], PACKAGE["types"], *(path[2:] for path in paths(PACKAGE["exports"]))}
    assert named == set(PACKAGE["files"])
    assert all((CLIENT / name).is_file() and not (CLIENT / name).is_symlink() for name in named | ALWAYS)
    assert not {"dependencies", "peerDependencies", "scripts"} & PACKAGE.keys()
    assert PACKAGE["version"] == gopush.__version__


def test_types_name_every_option() -> None:
    source, types = (CLIENT / "gopush.js").read_text(), (CLIENT / "gopush.d.ts").read_text()
    match = re.search(r"const \{ ([^}]+) \} = options;", source)
    assert match is not None
    taken = {option.split(" =")[0] for option in match[1].split(", ")} | set(re.findall(r"options\.(\w+)", source))
    declared = types.partition("interface Options")[2].partition("\n}")[0]
    assert set(re.findall(r"^  (\w+)\?:", declared, re.MULTILINE)) == taken


def test_a_module_has_the_same_types() -> None:
    """But for a default: with the script's types a compiler took `import gopush from "gopush"`, and Node did not."""
    assert PACKAGE["exports"]["."]["import"] == {"types": "./gopush.d.mts", "default": "./gopush.mjs"}
    lines = (CLIENT / "gopush.d.mts").read_text().splitlines()
    assert [line for line in lines if not line.startswith("/**")] == ['export * from "./gopush.js";']


@pytest.mark.skipif(shutil.which("npm") is None, reason="wants npm")
def test_npm_packs_it(tmp_path: Path) -> None:
    command = ["npm", "pack", "--offline", "--pack-destination", str(tmp_path), str(CLIENT)]
    environment = {"PATH": f"{Path(shutil.which('npm') or '').parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packed:
        assert {name.removeprefix("package/") for name in packed.getnames()} == {*PACKAGE["files"], *ALWAYS}
