"""Connections that send at once, over real sockets."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from gopush.net import transport as wire
from gopush.net.eager import MOST_UNSENT, EagerReactor, EagerServer
from tests.conftest import InReactor, reactor
from tests.fixtures import lines_logged

PATIENCE = 30.0


class Server(Protocol):
    """The comet's side of a connection."""

    def __init__(self) -> None:
        self.made = threading.Event()
        self.lost = threading.Event()

    def connectionMade(self) -> None:
        self.made.set()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.set()


class Pair:
    """Both ends of a connection; what is done at the server's is done in the reactor's thread."""

    def __init__(self, in_reactor: InReactor, connect: Callable[[], socket.socket], server: Server) -> None:
        self._in_reactor = in_reactor
        self.client = connect()
        self.client.settimeout(PATIENCE)
        self.server = server
        assert server.made.wait(PATIENCE)
        self.transport: Any = server.transport

    def send(self, data: bytes) -> int:
        """Send from the server's end; how many bytes wait there."""
        return int(self.do(wire.sender(self.transport), data))

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._in_reactor(function, *args)

    def read(self, size: int) -> None:
        """Read so many bytes at the client's end."""
        while size > 0:
            size -= len(self.client.recv(size))

    def rest(self) -> bytes:
        return b"".join(iter(lambda: self.client.recv(1 << 16), b""))

    def fill(self) -> bytes:
        """Send until the client's kernel takes no more; what was sent."""
        sent, chunk = b"", b"0123456789" * 10_000
        while not self.send(b""):
            self.send(chunk)
            sent += chunk
        return sent


Connect = Callable[[], Pair]


@pytest.fixture
def connect(in_reactor: InReactor, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Make connections: eager ones, or, with the parameter "unix", those that Twisted makes by itself."""
    unix = getattr(request, "param", "") == "unix"
    servers: list[Server] = []
    clients: list[socket.socket] = []
    factory = Factory()
    factory.buildProtocol = lambda _: servers.pop()  # type: ignore[assignment,method-assign]
    path = str(tmp_path / "socket")

    def listen() -> Any:
        if unix:
            return reactor.listenUNIX(path, factory)
        return EagerReactor(reactor).listenTCP(0, factory, interface="127.0.0.1")

    listening = in_reactor(listen)

    def dial() -> socket.socket:
        client = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        client.connect(path if unix else ("127.0.0.1", listening.getHost().port))
        clients.append(client)
        return client

    def make() -> Pair:
        server = Server()
        servers.append(server)
        return Pair(in_reactor, dial, server)

    yield make
    in_reactor(listening.stopListening)
    for client in clients:
        client.close()


both = pytest.mark.parametrize("connect", ["eager", "unix"], indirect=True)


@both
def test_a_peer_is_named_by_its_address_if_it_has_one(connect: Connect) -> None:
    pair = connect()
    own = pair.client.getsockname()
    assert pair.do(wire.peer, pair.transport) == ":".join(map(str, own))


def test_what_is_sent_goes_to_the_socket_in_the_same_turn(connect: Connect) -> None:
    """docs/performance.md: one `send` a message; nothing waits for the reactor's next turn."""
    pair = connect()
    assert isinstance(pair.transport, EagerServer)

    def send_and_look() -> bytes:
        assert wire.sender(pair.transport)(b"now") == 0  # nothing waits
        return pair.client.recv(10)  # the reactor cannot have had another turn

    assert pair.do(send_and_look) == b"now"


def test_twisteds_own_write_is_eager_too(connect: Connect) -> None:
    """What writes through the transport, such as TLS, keeps its order with what is sent."""
    pair = connect()

    def write() -> None:
        pair.transport.write(b"1")
        pair.transport.write(b"")
        wire.sender(pair.transport)(b"2")
        pair.transport.writeSequence([b"3", b"4"])
        pair.transport.write(b"5")

    pair.do(write)
    assert pair.client.recv(1) == b"1"
    pair.do(wire.finish, pair.transport)
    assert pair.rest() == b"2345"


def _falls(pair: Pair, waited: int) -> bool:
    return pair.send(b"") < waited


def test_the_kernel_asks_for_more_as_soon_as_a_little_is_read(connect: Connect) -> None:
    """Else a slow reader shows nothing of its reading while the kernel has MBs."""
    pair = connect()
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    pair.fill()
    waits = pair.send(b"x" * (1 << 20))
    for _ in range(3):
        pair.read(4 * MOST_UNSENT)
        _eventually(partial(_falls, pair, waits))
        waits = pair.send(b"")


def test_what_a_slow_client_reads_shows_before_the_kernel_asks_for_more(connect: Connect) -> None:
    pair = connect()
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    pair.fill()
    waits = pair.send(b"x" * (1 << 20))

    def unread() -> int:
        lag = pair.do(wire.lag, pair.transport)
        assert lag is not None
        return int(lag.unread)

    assert unread() > waits
    pair.read(2 * MOST_UNSENT)  # among it what the client's kernel took before it had so small a buffer
    for _ in range(4):
        time.sleep(0.05)
        before = unread()
        pair.read(MOST_UNSENT // 8)
        _eventually(lambda: unread() <= before - 4096)  # noqa: B023


@both
def test_what_the_client_does_not_read_is_counted_and_kept_in_order(connect: Connect) -> None:
    """The bytes that wait in this process are what `send` answers."""
    pair = connect()
    sent = pair.fill()
    waiting = pair.send(b"x")
    assert 1 < waiting <= len(sent)
    assert pair.send(b"yz") >= waiting - 100_000
    assert pair.send(b"") > 0
    pair.do(wire.finish, pair.transport)
    assert pair.rest() == sent + b"xyz"


@both
def test_drained_fires_once_all_is_out(connect: Connect) -> None:
    """At once where nothing waits; else when the client has read."""
    pair = connect()
    pair.do(wire.drained, pair.transport)
    sent = pair.fill()
    fired: list[object] = []

    def wait() -> None:
        wire.drained(pair.transport).addCallback(fired.append)

    pair.do(wait)
    time.sleep(0.05)
    assert fired == []
    received = 0
    while received < len(sent):
        received += len(pair.client.recv(1 << 16))
    _eventually(lambda: fired == [None])
    pair.send(b"more")
    assert pair.client.recv(4) == b"more"


@both
def test_drained_fires_where_the_connection_is_lost(connect: Connect) -> None:
    """Nobody waits for ever."""
    pair = connect()
    pair.fill()
    fired: list[object] = []

    def wait() -> None:
        wire.drained(pair.transport).addCallback(fired.append)

    pair.do(wait)
    pair.client.close()
    _eventually(lambda: fired == [None])
    assert pair.server.lost.wait(PATIENCE)
    pair.do(wire.drained, pair.transport)


@both
def test_finish_ends_behind_what_was_sent(connect: Connect) -> None:
    """The last bytes and then the end arrive, though the client sends on; the connection ends when the client does."""
    pair = connect()
    sent = pair.fill() + b"last"
    pair.send(b"last")
    pair.do(wire.finish, pair.transport)
    pair.client.sendall(b"in vain")
    assert pair.rest() == sent
    pair.client.sendall(b"in vain")
    assert not pair.server.lost.is_set()
    pair.client.close()
    assert pair.server.lost.wait(PATIENCE)


@both
def test_abort_loses_nothing_that_the_kernel_has(connect: Connect) -> None:
    """Where nothing waits the end is orderly, and follows at once."""
    pair = connect()
    pair.send(b"sent")
    pair.do(wire.abort, pair.transport)
    assert pair.server.lost.wait(PATIENCE)
    assert pair.rest() == b"sent"


@both
def test_abort_waits_for_nobody(connect: Connect) -> None:
    """What waits for a client that does not read is dropped with the connection."""
    pair = connect()
    pair.fill()
    pair.do(wire.abort, pair.transport)
    assert pair.server.lost.wait(PATIENCE)


@both
@pytest.mark.parametrize("finished", [False, True])
def test_abort_does_not_wait_for_room_in_the_kernel(connect: Connect, finished: bool) -> None:
    """Its buffers are full of what the client does not read, and nothing waits in this process: the kernel keeps it."""
    pair = connect()

    def fill() -> bytes:
        sent = 0
        with suppress(BlockingIOError):
            while True:
                sent += pair.transport.socket.send(b"0123456789" * 10_000)
        return b"0123456789" * (sent // 10) + b"0123456789"[: sent % 10]

    sent = pair.do(fill)
    if finished:
        pair.do(wire.finish, pair.transport)
    pair.do(wire.abort, pair.transport)
    assert pair.server.lost.wait(PATIENCE)
    assert len(pair.rest()) == len(sent)


@both
@pytest.mark.parametrize("filled", [False, True])
def test_abort_ends_what_is_finished(connect: Connect, filled: bool) -> None:
    """A client that never closes its side is closed."""
    pair = connect()
    if filled:
        pair.fill()
    pair.do(wire.finish, pair.transport)
    assert not pair.server.lost.wait(0.05)
    pair.do(wire.abort, pair.transport)
    assert pair.server.lost.wait(PATIENCE)


@both
def test_what_is_sent_after_the_end_goes_nowhere(connect: Connect) -> None:
    """No error, whoever ended it."""
    pair = connect()
    pair.do(wire.finish, pair.transport)
    assert pair.rest() == b""
    pair.send(b"too late")
    pair.client.close()
    assert pair.server.lost.wait(PATIENCE)
    pair.send(b"too late")


def test_a_client_that_resets_is_lost_without_an_error(connect: Connect) -> None:
    """A send to a broken connection is met by Twisted's own write."""
    pair = connect()
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def reset_and_send() -> None:
        pair.client.close()
        for _ in range(3):
            wire.sender(pair.transport)(b"x")

    pair.do(reset_and_send)
    assert pair.server.lost.wait(PATIENCE)


def test_an_eager_connection_is_a_tcp_connection(connect: Connect) -> None:
    """Addresses and options as Twisted's own have them."""
    pair = connect()
    assert pair.transport.getPeer().port == pair.client.getsockname()[1]
    assert pair.transport.getHost().port == pair.client.getpeername()[1]
    pair.do(pair.transport.setTcpKeepAlive, True)
    assert pair.transport.getTcpKeepAlive()


def test_the_reactor_is_itself_in_all_else(in_reactor: InReactor) -> None:
    """Only TCP ports are eager."""
    assert in_reactor(EagerReactor(reactor).seconds) > 0


def test_ipv6_connections_are_eager_too(in_reactor: InReactor) -> None:
    """Where the machine has it."""
    factory = Factory()
    server = Server()
    factory.buildProtocol = lambda _: server  # type: ignore[assignment,method-assign]
    try:
        listening = in_reactor(EagerReactor(reactor).listenTCP, 0, factory, 50, "::1")
    except Exception as missing:
        pytest.skip(f"no IPv6 here: {missing}")
    client = socket.create_connection(("::1", listening.getHost().port))
    assert server.made.wait(PATIENCE)
    transport: Any = server.transport
    assert transport.getPeer().host == "::1"
    client.close()
    in_reactor(listening.stopListening)


def _eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_what_a_caller_writes_goes_to_the_socket_in_the_same_turn(in_reactor: InReactor) -> None:
    """Calls between the nodes and to Redis do not wait for the reactor's next turn either."""
    caller = Server()
    factory = Factory.forProtocol(lambda: caller)

    def write_and_look() -> bytes:
        transport: Any = caller.transport
        transport.write(b"a call")
        return called.recv(100)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        endpoint = HostnameEndpoint(EagerReactor(reactor), "127.0.0.1", listening.getsockname()[1])
        in_reactor(endpoint.connect, factory)
        with listening.accept()[0] as called:
            called.settimeout(PATIENCE)
            assert in_reactor(write_and_look) == b"a call"
            transport: Any = caller.transport
            in_reactor(transport.loseConnection)
            assert called.recv(100) == b""
    assert caller.lost.wait(PATIENCE)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Server):
    """One that is told apart when its client only stops sending."""

    def __init__(self) -> None:
        super().__init__()
        self.read_lost = threading.Event()

    def readConnectionLost(self) -> None:
        self.read_lost.set()

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""


@pytest.mark.parametrize("resets", [False, True])
def test_a_client_that_only_stops_sending_differs_from_one_that_broke(in_reactor: InReactor, resets: bool) -> None:
    server = HalfCloseable()
    factory = Factory.forProtocol(lambda: server)
    listening = in_reactor(lambda: EagerReactor(reactor).listenTCP(0, factory, interface="127.0.0.1"))
    with socket.create_connection(("127.0.0.1", listening.getHost().port)) as client:
        assert server.made.wait(PATIENCE)
        if resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert server.lost.wait(PATIENCE)
            assert not server.read_lost.is_set()
        else:
            client.shutdown(socket.SHUT_WR)
            assert server.read_lost.wait(PATIENCE)
            assert not server.lost.is_set()
    in_reactor(listening.stopListening)


class Clumsy(Protocol):
    """Says what it reads, and stumbles over "bad"."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"read " + data)
        if data == b"bad":
            raise ValueError


class Broken(Clumsy):
    """Its end fails, too."""

    def connectionLost(self, reason: Any = None) -> None:
        raise RuntimeError


def test_a_connection_that_fails_in_every_way_does_not_take_its_port_along(in_reactor: InReactor) -> None:
    factory = Factory.forProtocol(Broken)
    port = in_reactor(EagerReactor(reactor).listenTCP, 0, factory, 50, "127.0.0.1")
    for first in (b"bad", b"good"):
        in_reactor(port.stopReading)
        with socket.create_connection(("127.0.0.1", port.getHost().port), PATIENCE) as client:
            client.sendall(first)
            in_reactor(port.startReading)
            assert client.recv(100) == b"read " + first
            assert first == b"good" or client.recv(100) == b""
    in_reactor(port.stopListening)


def test_what_is_there_when_it_is_accepted_is_read_at_once_and_an_error_ends_that_one_alone(
    in_reactor: InReactor,
) -> None:
    factory = Factory.forProtocol(Clumsy)
    port = in_reactor(EagerReactor(reactor).listenTCP, 0, factory, 50, "127.0.0.1")
    in_reactor(port.stopReading)
    clients = [socket.create_connection(("127.0.0.1", port.getHost().port), PATIENCE) for _ in range(3)]
    for client, first in zip(clients, (b"good", b"bad", b""), strict=True):
        client.sendall(first)
    in_reactor(port.startReading)
    assert clients[0].recv(100) == b"read good"
    assert b"".join(iter(lambda: clients[1].recv(100), b"")) == b"read bad"
    for client in (clients[0], clients[2]):
        client.sendall(b"later")
        assert client.recv(100) == b"read later"
        client.close()
    clients[1].close()
    in_reactor(port.stopListening)


@pytest.mark.parametrize(("service", "lines"), [(ClientService, True), (wire.QuietClientService, False)])
def test_an_attempt_to_connect_makes_no_line(service: type[ClientService], lines: bool) -> None:
    class Nowhere:
        def connect(self, _: Any) -> Deferred[Any]:
            return fail(ConnectionRefusedError())

    clock, nowhere, factory = cast(Any, (Clock(), Nowhere(), Factory()))
    with lines_logged(lambda _: True) as found:
        made: Any = service(nowhere, factory, clock=clock)
        made.startService()
        clock.pump([1.0] * 10)
        made.stopService()
    assert bool(found) is lines
