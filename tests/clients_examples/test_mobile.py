"""The Kotlin of docs/mobile.md is compiled, receives, reads on after a restart of gopush, and hears of gaps."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.request import urlopen

import pytest

from gopush_client import Publisher
from tests.chaos.cluster import Node
from tests.clients import eventually
from tests.integration.systems import embedded
from tests.pages import blocks
from tests.servers import maven

(KOTLIN,) = blocks("docs/mobile.md", "kotlin")
MAIN = """
fun main(args: Array<String>) {
    Subscription(args[0], "k", args[1].toLong(), { "" }, ::Socket) { mid, json -> println("$mid $json") }.run()
}
"""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mvn") is None, reason="wants maven, which fetches Kotlin's compiler"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What runs it, but for the address and the mid."""
    tmp_path = tmp_path_factory.mktemp("kotlin")
    jars = maven.jars(Path(__file__).parent / "kotlin-jars.xml", "kotlin-1.9.24", "GOPUSH_KOTLIN_JARS")
    source = tmp_path / "Client.kt"
    source.write_text(KOTLIN + MAIN)
    compiler = ["java", "-cp", f"{jars}/*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib", "-no-reflect"]
    library = next(jars.glob("kotlin-stdlib-1*.jar"))
    command = [*compiler, "-cp", str(library), "-d", str(tmp_path / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return ["java", "-cp", f"{tmp_path / 'out'}:{library}", "ClientKt"]


@contextmanager
def receiving(client: list[str], node: Node) -> Iterator[IO[str]]:
    """What it prints."""
    run = [*client, f"http://{node.address('http')}", "0"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout
        finally:
            process.kill()


def test_kotlin_receives_and_reads_on_after_a_restart(client: list[str]) -> None:
    with embedded() as system, Publisher(system.admins[0]) as publisher:
        (node,) = system.webs
        with receiving(client, node) as lines:
            for number in range(4):
                if number == 2:
                    node.kill()
                    node.start()
                mid = publisher.push("k", {"number": number}, expire=600)
                received, _, message = lines.readline().partition(" ")
                assert (int(received), json.loads(message)["msg"]) == (mid, {"number": number})


def test_kotlin_hears_of_a_gap_before_its_first_message(client: list[str]) -> None:
    with embedded({"storage": {"store": "20"}}) as system, Publisher(system.admins[0]) as publisher:
        (node,) = system.webs
        with receiving(client, node) as lines:
            eventually(lambda: b'"closed":1' in close(node))
            mids = [pushed.mid for pushed in publisher.push_stream(("k", number) for number in range(30))]
            assert "trimmed" in lines.readline()
            assert lines.readline().startswith(f"{mids[10]} ")


def close(node: Node) -> bytes:
    """End the connections of the key."""
    with urlopen(f"http://{node.address('admin')}/1/admin/key/close?key=k", b"", timeout=30) as answer:
        said: bytes = answer.read()
    return said
