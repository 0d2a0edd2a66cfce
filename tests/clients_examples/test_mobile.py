"""The Kotlin of docs/mobile.md is compiled, receives, reads on after a restart of gopush, hears of gaps, and ends."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from tests.servers.authority import Authority

(KOTLIN,) = blocks("docs/mobile.md", "kotlin")
MAIN = """
lateinit var subscription: Subscription

fun main(args: Array<String>) {
    val connect: (String, Int) -> Socket = if (args.size > 2) ::overTls else ::Socket
    subscription = Subscription(args[0], "k", args[1].toLong(), { "" }, connect) { mid, json ->
        println("$mid $json")
        if ("the end" in json) subscription.close()
    }
    thread(isDaemon = true) {
        if (readLine() != null) {
            subscription.close()
            println("closed")
        }
    }
    subscription.run()
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
def running(client: list[str], address: str, *more: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """What it prints; and where a line closes it."""
    run = [*client, f"http://{address}", "0", *more]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin
            assert process.stdout
            yield process.stdout, process.stdin
        finally:
            process.kill()


@contextmanager
def receiving(client: list[str], node: Node) -> Iterator[IO[str]]:
    """What it prints."""
    with running(client, node.address("http")) as (lines, _):
        yield lines


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A server that says what a test says."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def look_up(asked: socket.socket, comet: socket.socket) -> None:
    """Answer it."""
    asked.recv(4096)
    body = f'{{"ret":0,"data":{{"server":"{address(comet)}"}}}}'
    asked.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())


def messages(*bodies: str) -> bytes:
    """What a comet says to a subscriber that has seen nothing."""
    bulks = [f'{{"msg":"{body}","mid":{16 * number},"gid":0}}' for number, body in enumerate(bodies, 1)]
    return ("+h\r\n" + "".join(f"${len(bulk)}\r\n{bulk}\r\n" for bulk in bulks)).encode()


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


def test_kotlin_asks_again_where_nobody_answers_its_look_up(client: list[str]) -> None:
    with listening() as web, running(client, address(web)):
        first, _ = web.accept()
        second, _ = web.accept()
        first.close()
        second.close()


def test_kotlin_gives_nothing_where_it_is_closed_during_its_look_up(client: list[str]) -> None:
    with listening() as web, listening() as comet, running(client, address(web)) as (lines, orders):
        asked, _ = web.accept()
        orders.write("close\n")
        orders.flush()
        assert lines.readline() == "closed\n"
        look_up(asked, comet)
        asked.close()
        subscribed, _ = comet.accept()
        with subscribed, suppress(OSError):
            subscribed.sendall(messages("late"))
            assert lines.readline() == ""


def test_kotlin_gives_nothing_behind_its_end(client: list[str]) -> None:
    """Though it has come with the message that ended it."""
    with listening() as web, listening() as comet, running(client, address(web)) as (lines, _):
        asked, _ = web.accept()
        look_up(asked, comet)
        asked.close()
        subscribed, _ = comet.accept()
        with subscribed:
            subscribed.sendall(messages("the end", "late"))
            assert "the end" in lines.readline()
            assert lines.readline() == ""


def test_kotlin_comes_back_from_what_is_not_gopush(client: list[str]) -> None:
    """What is no number ended its thread."""
    said = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-1\r\n", b"$2\r\n{}\r\n", messages("the end")]
    with listening() as web, listening() as comet, running(client, address(web)) as (lines, _):
        for words in said:
            asked, _ = web.accept()
            look_up(asked, comet)
            asked.close()
            subscribed, _ = comet.accept()
            with subscribed:
                subscribed.recv(4096)
                subscribed.sendall(words)
                if words == said[-1]:
                    assert "the end" in lines.readline()


def test_kotlin_takes_no_certificate_of_another_name(client: list[str], tmp_path: Path) -> None:
    """A socket of Java's does, though its authority is known."""
    authority = Authority(tmp_path)
    store = ["-keystore", str(tmp_path / "trusted"), "-storepass", "trusted"]
    subprocess.run(["keytool", "-importcert", "-noprompt", "-file", str(authority.path), *store], check=True)
    trust = [f"-Djavax.net.ssl.trustStore={tmp_path / 'trusted'}", "-Djavax.net.ssl.trustStorePassword=trusted"]
    trusting = [client[0], *trust, *client[1:]]
    own, other = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    own.load_cert_chain(*authority.issue("own"))
    other.load_cert_chain(*authority.issue("other", "other.example"))
    with listening() as web, listening() as comet, running(trusting, address(web), "tls") as (lines, _):
        for context in (other, own):
            asked, _ = web.accept()
            look_up(asked, comet)
            asked.close()
            accepted, _ = comet.accept()
            accepted.settimeout(30)
            if context is other:
                with accepted, pytest.raises(ssl.SSLError):
                    context.wrap_socket(accepted, server_side=True).recv(1)
                continue
            with context.wrap_socket(accepted, server_side=True) as subscribed:
                subscribed.sendall(messages("the end"))
                assert "the end" in lines.readline()


def close(node: Node) -> bytes:
    """End the connections of the key."""
    with urlopen(f"http://{node.address('admin')}/1/admin/key/close?key=k", b"", timeout=30) as answer:
        said: bytes = answer.read()
    return said
