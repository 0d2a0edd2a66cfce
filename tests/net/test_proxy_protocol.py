"""Behind a balancer: limits and lists see the clients, and nobody else says who he is."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gopush.comet.settings import SubscriberSettings
from gopush.comet.tcp import TcpFactory
from gopush.config.values import listeners
from gopush.daemon.listeners import Listeners
from gopush.errors import SettingsError
from gopush.message.store import StoreSettings
from gopush.net import transport as wire
from gopush.net.eager import EagerReactor
from gopush.net.limits import ConnectionLimiter, ConnectionSettings
from tests.clients import eventually, request
from tests.comet.wire import CometServer
from tests.conftest import InReactor, reactor
from tests.servers.authority import Authority

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
SUBSCRIBE = request("sub", "k", "30", "", "1")


def v1(address: str, port: int = 4711) -> bytes:
    kind, target = ("TCP6", "::1") if ":" in address else ("TCP4", "127.0.0.1")
    return f"PROXY {kind} {address} {target} {port} 6969\r\n".encode()


def v2(address: str, port: int = 4711, more: bytes = b"") -> bytes:
    kind, target = (socket.AF_INET6, "::1") if ":" in address else (socket.AF_INET, "127.0.0.1")
    body = socket.inet_pton(kind, address) + socket.inet_pton(kind, target) + struct.pack("!HH", port, 6969) + more
    return SIGNATURE + bytes((0x21, 0x21 if ":" in address else 0x11)) + struct.pack("!H", len(body)) + body


UNKNOWN = (
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    SIGNATURE + b"\x20\x00\x00\x00",  # LOCAL
    SIGNATURE + b"\x20\x11\x00\x03abc",
    SIGNATURE + b"\x21\x00\x00\x00",  # no family
    SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),  # a UNIX socket
)


class Door:
    """A comet at a `haproxy:` endpoint."""

    def __init__(self, in_reactor: InReactor, endpoint: str, **settings: Any) -> None:
        self._in_reactor = in_reactor
        self.server = CometServer(SubscriberSettings(), StoreSettings())
        self.counters: Any = self.server.comet.counters
        self.limiter = ConnectionLimiter(reactor, ConnectionSettings(**settings), 10_000, self.counters)
        factory = TcpFactory(self.server.comet)
        self.listeners = Listeners(EagerReactor(reactor, self.limiter), "[base] tcp.bind", [endpoint], factory)
        in_reactor(self.listeners.startService)
        self.port = getattr(self.listeners.ports[0].getHost(), "port", 0)

    def connect(self, *pieces: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(20)
        for piece in pieces:
            client.sendall(piece)
        return client

    def peers(self) -> list[str]:
        return sorted(wire.peer(session.wire.transport) for session in self.server.sessions("k"))

    def stop(self) -> None:
        self._in_reactor(self.listeners.stopService)
        self.server.stop()


@pytest.fixture
def door(in_reactor: InReactor) -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def make(endpoint: str = "haproxy:tcp:0:interface=127.0.0.1", **settings: Any) -> Door:
        doors.append(Door(in_reactor, endpoint, **settings))
        return doors[-1]

    yield make
    for each in doors:
        each.stop()


def end(client: socket.socket) -> bytes:
    """All that comes before the connection ends."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(1000):
            received += piece
    return received


@pytest.mark.parametrize("header", [v1, v2])
def test_each_client_has_its_connections(door: Callable[..., Door], header: Callable[[str], bytes]) -> None:
    found = door(most_of_address=1)
    clients = [found.connect(header(address) + SUBSCRIBE) for address in ("203.0.113.7", "203.0.113.8", "2001:db8::1")]
    assert [client.recv(4) for client in clients] == [b"+h\r\n"] * 3
    assert found.peers() == ["203.0.113.7:4711", "203.0.113.8:4711", "[2001:db8::1]:4711"]
    for address in ("203.0.113.7", "2001:db8::2"):
        with found.connect(header(address) + SUBSCRIBE) as more:
            assert end(more) == b""
    assert found.counters.refused_address == 2
    clients[0].close()
    eventually(lambda: found.limiter.open == 2)
    with found.connect(header("203.0.113.7") + SUBSCRIBE) as again:
        assert again.recv(4) == b"+h\r\n"
    for client in clients:
        client.close()
    eventually(lambda: found.limiter.open == 0)
    assert not found.limiter._addresses


def test_a_client_on_the_balancers_own_machine_has_its_connections(door: Callable[..., Door]) -> None:
    """Those of the balancer itself counted as that client's."""
    found = door(most_of_address=2)
    with ExitStack() as stack:
        for address in [*(f"203.0.113.{number}" for number in range(5)), "127.0.0.1", "127.0.0.1"]:
            client = stack.enter_context(found.connect(v1(address) + SUBSCRIBE))
            assert client.recv(4) == b"+h\r\n", address
        with found.connect(v1("127.0.0.1") + SUBSCRIBE) as more:
            assert end(more) == b""
        assert found.counters.refused_address == 1
    eventually(lambda: found.limiter.open == 0)
    assert not found.limiter._addresses


@pytest.mark.parametrize("header", UNKNOWN)
def test_a_connection_of_the_balancer_itself_is_served(door: Callable[..., Door], header: bytes) -> None:
    found = door(most_of_address=1)
    with found.connect(header + SUBSCRIBE) as first, found.connect(header, SUBSCRIBE) as second:
        assert [first.recv(4), second.recv(4)] == [b"+h\r\n"] * 2
        assert all(peer.startswith("127.0.0.1:") for peer in found.peers())


@pytest.mark.parametrize("header", [v1("203.0.113.7"), v2("2001:db8::1", more=bytes(3000)), UNKNOWN[0], UNKNOWN[2]])
def test_a_header_may_come_in_pieces(door: Callable[..., Door], header: bytes) -> None:
    found = door()
    cuts = [*range(min(len(header), 40)), len(header)]
    pieces = [header[at:to] for at, to in pairwise(cuts)]
    with found.connect() as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.002)  # else pieces may come as one, which is no harm
        client.sendall(SUBSCRIBE)
        assert client.recv(4) == b"+h\r\n"


@pytest.mark.parametrize(
    "wrong",
    [
        SUBSCRIBE,
        b"\r\n\r\n\x00\r\nQUIT\r",
        b"PROXY TCP4 nonsense 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2 3\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 x 2\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 65536 2\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        b"PROXY UDP4 203.0.113.7 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 \xff\xff 127.0.0.1 1 2\r\n",
        b"PROXY UNKNOWN" + b" " * 200,
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_is_closed(door: Callable[..., Door], wrong: bytes) -> None:
    found = door()
    with found.connect(wrong) as client:
        assert end(client) == b""
    eventually(lambda: found.limiter.open == 0)
    assert found.counters.refused_proxy == 1


def test_who_says_nothing_is_closed(door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopush.net.proxy_protocol.HEADER_SECONDS", 0.3)
    found = door()
    with found.connect() as silent, found.connect(b"PROXY TC") as slow, found.connect(v1("203.0.113.7")) as said:
        assert [end(silent), end(slow)] == [b"", b""]
        said.sendall(SUBSCRIBE)
        assert said.recv(4) == b"+h\r\n"
    assert found.counters.refused_proxy == 2


def test_only_those_who_are_listed_say_it(door: Callable[..., Door]) -> None:
    found = door(proxies=("10.0.0.0/8",))
    with found.connect() as client:
        assert end(client) == b""
    assert found.counters.refused_proxy == 1
    with door(proxies=("127.0.0.0/8",)).connect(v1("203.0.113.7") + SUBSCRIBE) as client:
        assert client.recv(4) == b"+h\r\n"


def test_tls_comes_behind_the_header(door: Callable[..., Door], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("server")
    try:
        found = door(f"haproxy:ssl:0:{own.endpoint}:interface=127.0.0.1", most_of_address=1)
    except SettingsError as wrong:
        pytest.fail(str(wrong))
    tls = ssl.create_default_context(cafile=str(authority.path))
    for _ in range(2):
        with tls.wrap_socket(found.connect(v2("203.0.113.7")), server_hostname="localhost") as client:
            client.sendall(SUBSCRIBE)
            assert client.recv(4) == b"+h\r\n"
            assert found.peers() == ["203.0.113.7:4711"]
        eventually(lambda: found.limiter.open == 0)


def test_a_unix_socket_may_be_the_balancers_way(door: Callable[..., Door], tmp_path: Path) -> None:
    found = door(f"haproxy:unix:{tmp_path}/socket", most_of_address=1)
    with ExitStack() as stack:
        for address, answer in (("203.0.113.7", b"+h\r\n"), ("203.0.113.8", b"+h\r\n"), ("203.0.113.7", b"")):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(20)
            client.connect(f"{tmp_path}/socket")
            client.sendall(v1(address) + SUBSCRIBE)
            assert client.recv(4) == answer
        assert found.peers() == ["203.0.113.7:4711", "203.0.113.8:4711"]


@pytest.mark.parametrize(
    "endpoint", ["haproxy:haproxy:tcp:0", "haproxy:tls:0", "haproxy:6969", "haproxy:localhost:6969", "haproxy:"]
)
def test_what_cannot_stand_behind_haproxy_is_named(endpoint: str) -> None:
    with pytest.raises(ValueError, match="haproxy: stands before one of tcp, tcp6, ssl, unix, systemd") as wrong:
        listeners(endpoint)
    assert "\n" not in str(wrong.value)
