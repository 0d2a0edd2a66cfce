"""The examples of docs/http-api.md push, each in under six lines, and those of README.md do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gopush_client import Subscriber
from tests.chaos.cluster import Node
from tests.integration.systems import embedded

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "http-api.md").read_text().partition("## A push in your language")[2]
EXAMPLES = dict(re.findall(r"```(\w+)\n(.*?)```", DOCS, re.DOTALL))
RUN = {
    "sh": ("push.sh", "sh"),
    "python": ("push.py", sys.executable),
    "js": ("push.mjs", "node"),
    "php": ("push.php", "php"),
    "go": ("push.go", "go", "run"),
    "java": ("Push.java", "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1"),
}
NAMES = {"sh": "curl", "js": "node"}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with embedded() as system:
        yield system.webs[0]


def test_there_is_one_for_each_language_and_it_is_short() -> None:
    assert EXAMPLES.keys() == RUN.keys()
    for language, example in EXAMPLES.items():
        assert 0 < len([line for line in example.splitlines() if line.strip()]) < 6, language


def _is_here(language: str) -> bool:
    return all(shutil.which(name) is not None for name in (RUN[language][1], NAMES.get(language, RUN[language][1])))


@pytest.mark.skipif(shutil.which("gofmt") is None, reason="wants Go")
def test_the_one_in_go_is_go() -> None:
    """The quick form of its run, for which Go compiles all of its HTTP library the first time."""
    done = subprocess.run(
        ["gofmt", "-e"], input=EXAMPLES["go"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "language",
    [
        pytest.param(language, marks=[pytest.mark.slow] if language == "go" else [])
        for language in RUN
        if _is_here(language)
    ],
)
def test_it_pushes(node: Node, tmp_path: Path, language: str) -> None:
    file, *command = RUN[language]
    assert "localhost:8091" in EXAMPLES[language]
    example = tmp_path / file
    example.write_text(
        EXAMPLES[language].replace("localhost:8091", node.address("admin")).replace("Terry-Mao", language)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python"), "GO111MODULE": "off"}
    done = subprocess.run(
        [*command, str(example)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Notice" not in done.stderr  # as PHP has them
    (message,) = _first(node, language)
    assert message == {"hello": NAMES.get(language, language)}
    assert done.stdout.strip().isdecimal() if language == "python" else done.stdout.strip() == '{"ret":0}'


def _first(node: Node, key: str) -> Iterator[object]:
    """The first message of a key that is kept."""
    for message in Subscriber(f"http://{node.address('http')}", key, since=0):
        yield message.data
        return


def test_the_readme_shows_what_is_run_elsewhere() -> None:
    """Its curl is that of docs/http-api.md, its page that of the client's own README."""
    readme = (ROOT / "README.md").read_text()
    assert f"```sh\n{EXAMPLES['sh']}```" in readme
    (page,) = re.findall(r"```html\n.*?```", readme, re.DOTALL)
    assert page in (ROOT / "clients" / "js" / "README.md").read_text()


def test_the_readme_receives_in_python_what_it_pushes(node: Node, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "localhost:8091" in example
    assert "localhost:8090" in example
    script = tmp_path / "readme.py"
    script.write_text(
        example.replace("localhost:8091", node.address("admin"))
        .replace("localhost:8090", node.address("http"))
        .replace("Terry-Mao", "readme")
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")}
    command = ["timeout", "120", sys.executable, str(script)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline().endswith("{'hello': 'python'}\n")
        finally:
            running.terminate()
