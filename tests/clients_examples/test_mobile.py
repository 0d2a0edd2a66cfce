"""The Kotlin of docs/mobile.md is compiled, receives, and reads on after a restart of gopush."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from gopush_client import Publisher
from tests.integration.systems import embedded
from tests.pages import blocks
from tests.servers import maven

(KOTLIN,) = blocks("docs/mobile.md", "kotlin")
MAIN = """
fun main(args: Array<String>) {
    Subscription(args[0], "k", args[1].toLong(), { "" }, ::Socket) { mid, json -> println("$mid $json") }.run()
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mvn") is None, reason="wants maven, which fetches Kotlin's compiler")
def test_kotlin_receives_and_reads_on_after_a_restart(tmp_path: Path) -> None:
    jars = maven.jars(Path(__file__).parent / "kotlin-jars.xml", "kotlin-1.9.24", "GOPUSH_KOTLIN_JARS")
    source = tmp_path / "Client.kt"
    source.write_text(KOTLIN + MAIN)
    compiler = ["java", "-cp", f"{jars}/*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib", "-no-reflect"]
    library = next(jars.glob("kotlin-stdlib-1*.jar"))
    command = [*compiler, "-cp", str(library), "-d", str(tmp_path / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with embedded() as system:
        (node,) = system.webs
        run = ["java", "-cp", f"{tmp_path / 'out'}:{library}", "ClientKt", f"http://{node.address('http')}", "0"]
        with (
            subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as client,
            Publisher(f"http://{node.address('admin')}") as publisher,
        ):
            try:
                assert client.stdout
                for number in range(4):
                    if number == 2:
                        node.kill()
                        node.start()
                    mid = publisher.push("k", {"number": number}, expire=600)
                    received, _, message = client.stdout.readline().partition(" ")
                    assert (int(received), json.loads(message)["msg"]) == (mid, {"number": number})
            finally:
                client.kill()
