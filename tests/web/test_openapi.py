"""docs/openapi.json names every call of a web node, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.web.conftest import World

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS: dict[str, dict[str, Any]] = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]


def test_every_call_of_the_code_is_described() -> None:
    sources = [*(ROOT / "gopush" / "web").glob("*.py"), ROOT / "gopush" / "stats/resource.py"]
    served = {
        path
        for source in sources
        for path in re.findall(r'^ +(?:return \{)?"(/[a-z0-9/]+)":', source.read_text(), re.M)
    }
    assert served - {"/stat"} == set(PATHS)


def test_every_described_call_is_there(world: World) -> None:
    for path, methods in PATHS.items():
        for method, call in methods.items():
            (tag,) = call["tags"]
            ask = world.call_admin if tag == "admin" else lambda method, path: world.get(path)
            assert ask(method.upper(), path).status == 200, path


def test_what_must_be_given_must_be_given(world: World) -> None:
    for path, methods in PATHS.items():
        for method, call in methods.items():
            if any(parameter["required"] for parameter in call.get("parameters", ())):
                ask = world.call_admin if call["tags"] == ["admin"] else lambda method, path: world.get(path)
                assert json.loads(ask(method.upper(), path).body)["ret"] == 65534, path
