"""Connections that have ended are freed by their references alone: what is frozen (daemon/gc.py) is freed by
nothing else."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import threads

from gopush.comet.settings import SubscriberSettings
from gopush.comet.tcp import TcpFactory
from gopush.comet.websocket import SubscriberFactory
from gopush.daemon.listeners import Listeners
from gopush.message.store import StoreSettings
from gopush.model import NodeInfo
from gopush.net.eager import EagerReactor, EagerServer
from gopush.net.limits import ConnectionLimiter, ConnectionSettings
from gopush.rpc.remote import RemoteMessage
from gopush.rpc.server import secured
from gopush.rpc.settings import RpcSettings
from tests.clients import CLOSE, eventually, frame, opening, request
from tests.comet.wire import CometServer
from tests.conftest import InReactor, reactor
from tests.leaving import assert_nothing_is_left
from tests.rpc.serving import serve_message
from tests.rpc.test_server import OneMessage
from tests.servers.authority import Authority, Issued

KINDS = ("tcp", "websocket", "unix", "tls tcp", "tls websocket", "proxied tcp", "proxied tls websocket")
SECRET = "a secret of this cluster"
MANY_RSS = 4 << 20


class Doors:
    """A comet behind each kind of door, and a client's way to it."""

    def __init__(self, in_reactor: InReactor, directory: Path) -> None:
        self.server = CometServer(SubscriberSettings(), StoreSettings())
        self._in_reactor = in_reactor
        authority = Authority(directory)
        self._tls = ssl.create_default_context(cafile=str(authority.path))
        self._path = str(directory / "socket")
        own: Issued = authority.issue("server")
        tls = f"ssl:0:{own.endpoint}:interface=127.0.0.1"
        self._limiter = ConnectionLimiter(reactor, ConnectionSettings(), 10_000, self.server.comet.counters)
        self._listeners: list[Listeners] = []
        self._ports: dict[str, int] = {}
        made = {"tcp": TcpFactory, "websocket": SubscriberFactory}
        for kind in KINDS:
            endpoint = f"unix:{self._path}" if kind == "unix" else tls if "tls" in kind else "tcp:0:interface=127.0.0.1"
            endpoint = f"haproxy:{endpoint}" if "proxied" in kind else endpoint
            factory: Any = made.get(kind.split()[-1], TcpFactory)(self.server.comet)
            listeners = Listeners(EagerReactor(reactor, self._limiter), kind, [endpoint], factory)
            in_reactor(listeners.startService)
            self._listeners.append(listeners)
            self._ports[kind] = getattr(listeners.ports[0].getHost(), "port", 0)

    def connect(self, kind: str) -> socket.socket:
        if kind == "unix":
            client = socket.socket(socket.AF_UNIX)
            client.connect(self._path)
        else:
            client = socket.create_connection(("127.0.0.1", self._ports[kind]))
        client.settimeout(30)
        if "proxied" in kind:
            client.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 6969\r\n")
        return self._tls.wrap_socket(client, server_hostname="localhost") if "tls" in kind else client

    def gone(self) -> bool:
        counters = self.server.comet.counters
        return counters.connections_added == counters.connections_removed and self._limiter.open == 0

    def stop(self) -> None:
        for listeners in self._listeners:
            self._in_reactor(listeners.stopService)
        self.server.stop()


@pytest.fixture
def doors(in_reactor: InReactor, tmp_path: Path) -> Iterator[Doors]:
    made = Doors(in_reactor, tmp_path)
    yield made
    made.stop()


def subscribed(client: socket.socket, kind: str) -> None:
    if "websocket" in kind:
        client.sendall(opening("/sub?key=k&heartbeat=30&ver=1"))
    else:
        client.sendall(request("sub", "k", "30", "", "1"))
    assert client.recv(4)


def refused(client: socket.socket, kind: str) -> None:
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    while client.recv(1 << 16):
        pass


def closed_by_the_client(client: socket.socket, kind: str) -> None:
    subscribed(client, kind)
    client.sendall(frame(CLOSE, b"\x03\xe8") if "websocket" in kind else b"x")
    while client.recv(1 << 16):
        pass


def reset(client: socket.socket, kind: str) -> None:
    subscribed(client, kind)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(client: socket.socket, kind: str) -> None:
    """It connects, and goes."""


@pytest.mark.parametrize("talk", [subscribed, refused, closed_by_the_client, reset, silent])
@pytest.mark.parametrize("kind", KINDS)
def test_a_subscribers_connection_leaves_nothing(
    doors: Doors, kind: str, talk: Callable[[socket.socket, str], None]
) -> None:
    def connection() -> None:
        with doors.connect(kind) as client:
            talk(client, kind)

    assert_nothing_is_left(connection, doors.gone)


@pytest.mark.parametrize("kind", ["tcp", "websocket"])
def test_thousands_of_connections_leave_nothing(doors: Doors, kind: str) -> None:
    def connections() -> None:
        clients = [doors.connect(kind) for _ in range(50)]
        for client in clients:
            subscribed(client, kind)
        for client in clients:
            client.close()

    assert_nothing_is_left(connections, doors.gone, 10)


MANY = 20_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_thousand_connections_leave_nothing(doors: Doors, kind: str) -> None:
    turns = iter(range(MANY + 3))

    def connection() -> None:
        doors.server.leap(0.01)  # who may have to wait for the store is remembered for two seconds
        with doors.connect(kind) as client:
            (subscribed, closed_by_the_client, reset, refused)[next(turns) % 4](client, kind)

    def gone() -> bool:
        doors.server.leap(0.5)
        return doors.gone()

    print(kind, assert_nothing_is_left(connection, gone, MANY, MANY_RSS))


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01\x00\xa5\x01", b"x" * 500])
def test_a_client_that_speaks_no_tls_leaves_nothing(doors: Doors, says: bytes) -> None:
    def connection() -> None:
        with socket.create_connection(("127.0.0.1", doors._ports["tls tcp"])) as client:
            client.sendall(says)

    assert_nothing_is_left(connection, doors.gone)


@pytest.fixture(params=["plain", "tls"])
def calls(request: pytest.FixtureRequest, in_reactor: InReactor, tmp_path: Path) -> Iterator[tuple[int, RpcSettings]]:
    """A message node that serves calls: its port, and the settings of those who call."""
    rpc = RpcSettings(secret=SECRET)
    if request.param == "tls":
        authority = Authority(tmp_path)
        own = authority.issue("node")
        paths = map(str, (authority.path, own.certificate, own.key))
        names = ("tls_authorities", "tls_certificate", "tls_key")
        rpc = RpcSettings(secret=SECRET, **dict(zip(names, paths, strict=True)))  # type: ignore[arg-type]
    endpoint = ["tcp:0:interface=127.0.0.1"]
    served: Any = serve_message(reactor, OneMessage(), rpc.secret)
    listeners = Listeners(EagerReactor(reactor), "[base] rpc.bind", endpoint, secured(served, endpoint, rpc))
    in_reactor(listeners.startService)
    yield int(listeners.ports[0].getHost().port), rpc
    in_reactor(listeners.stopService)


def test_a_callers_connection_is_freed_by_its_references(in_reactor: InReactor, calls: tuple[int, RpcSettings]) -> None:
    port, rpc = calls
    remote = in_reactor(RemoteMessage, reactor, NodeInfo("", 0, (f"127.0.0.1:{port}",)), rpc, 10.0)
    in_reactor(remote.ping)
    left = [weakref.ref(each) for served in _served(port) for each in (served, served.protocol)]
    assert len(left) == 2
    gc.disable()
    try:
        in_reactor(remote.stop)
        eventually(lambda: [ref() for ref in left] == [None] * 2)
    finally:
        gc.enable()


@pytest.mark.parametrize("says", [b"", b"\x00" * 50, b"\x04\x82pb"])
def test_a_stranger_at_the_port_for_calls_leaves_nothing(calls: tuple[int, RpcSettings], says: bytes) -> None:
    port, _ = calls

    def connection() -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(says)

    assert_nothing_is_left(connection, lambda: not _served(port))


@pytest.mark.slow
def test_twenty_thousand_strangers_at_the_port_for_calls_leave_nothing(calls: tuple[int, RpcSettings]) -> None:
    port, _ = calls
    turns = iter(range(MANY + 3))

    def connection() -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall((b"", b"\x00" * 50, b"\x04\x82pb")[next(turns) % 3])

    print("calls", assert_nothing_is_left(connection, lambda: not _served(port), MANY, MANY_RSS))


def _served(port: int) -> list[Any]:
    """The connections at a port of this process."""
    readers = threads.blockingCallFromThread(reactor, reactor.getReaders)
    return [reader for reader in readers if isinstance(reader, EagerServer) and _port(reader) == port]


def _port(reader: Any) -> int:
    try:
        return int(reader.socket.getsockname()[1])
    except (OSError, AttributeError, IndexError, ValueError):
        return 0
