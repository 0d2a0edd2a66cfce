"""A running process takes new certificates at SIGHUP; connections stay, and a broken file changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.cluster import Node
from tests.clients import opening, request
from tests.http.client import Client
from tests.net.test_tls import client, connect, read
from tests.servers.authority import Authority

SECURED = ("tcp", "websocket", "http")
PATIENCE = 30.0


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gopush-renewal-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


class World:
    """An embedded gopush that speaks TLS with its clients, and a connection to each of its ports from the start."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.authority = Authority(directory)
        self.own = self.authority.issue("server")
        self.node = Node("gopush", "gopush", directory, {"storage": {"type": "memory"}})
        ini = directory / "gopush.ini"
        text = ini.read_text()
        for name in SECURED:
            port = self.node.ports[name]
            text = text.replace(f"127.0.0.1:{port}", f"ssl:{port}:{self.own.endpoint}:interface=127.0.0.1")
        ini.write_text(text)
        stack.callback(self.node.kill)
        self.node.start()
        self.tcp, self.websocket, self.http = (stack.enter_context(self.connect(name)) for name in SECURED)

    def connect(self, name: str) -> ssl.SSLSocket:
        return connect(self.node.ports[name], client(self.authority.path))

    def shown(self) -> list[bytes]:
        """The certificates that who connects now gets to see, in PEM."""
        certificates = []
        for name in SECURED:
            with self.connect(name) as connection:
                certificate = connection.getpeercert(binary_form=True)
                assert certificate
                certificates.append(ssl.DER_cert_to_PEM_cert(certificate).encode())
        return certificates

    def subscribe(self) -> None:
        self.tcp.sendall(request("sub", "k", "30", "", "1"))
        assert read(self.tcp, 4) == b"+h\r\n"
        self.websocket.sendall(opening("/sub?key=k&heartbeat=30&ver=1"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.websocket.recv(1)
        assert read(self.websocket, 6) == b"\x81\x04+h\r\n"

    def serves(self) -> None:
        """The connections from the start still get what is pushed, and answers."""
        with Client(self.node.ports["admin"]) as pusher:
            assert pusher.request("POST", "/1/admin/push/private?key=k&expire=60", b"1").body == b'{"ret":0}'
        body = read(self.tcp, 5 + len('{"msg":1,"mid":17000000000000000,"gid":0}') + 2)[5:-2]
        assert body.startswith(b'{"msg":1,"mid":')
        assert read(self.websocket, 2 + len(body)) == b"\x81" + bytes([len(body)]) + body
        self.http.sendall(b"GET /1/time/get HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read(self.http, 17) == b"HTTP/1.1 200 OK\r\n"
        while read(self.http, 1) != b"}":
            pass
        assert read(self.http, 1) == b"}"

    def reload(self, said: str) -> None:
        """SIGHUP, and wait until the log says so: once, for all listeners (config/test_reloading_file.py)."""
        before = self.node.log.read_text().count(said)
        os.kill(self.node.pid, signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while self.node.log.read_text().count(said) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_sighup_renews_certificates_and_closes_nobody(directory: Path) -> None:
    with ExitStack() as stack:
        world = World(directory, stack)
        world.subscribe()
        first = world.own.certificate.read_bytes()
        assert world.shown() == [first] * 3

        world.authority.issue("server")
        second = world.own.certificate.read_bytes()
        assert second != first
        world.reload("gopush.config.reload#info] read anew: ")
        assert world.shown() == [second] * 3
        world.serves()

        world.own.certificate.write_text("an accident")
        world.reload("gopush.config.reload#error] ")
        assert f"{world.own.certificate}: makes no TLS server with" in world.node.log.read_text()
        assert world.shown() == [second] * 3
        world.serves()
