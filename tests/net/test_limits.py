"""The bounds on connections: who must wait does so in the kernel, those who are connected are served."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gopush.comet.counters import CometCounters
from gopush.comet.settings import SubscriberSettings
from gopush.comet.tcp import TcpFactory
from gopush.message.store import StoreSettings
from gopush.net.accept import ACCEPTS_IN_A_TURN
from gopush.net.eager import EagerReactor
from gopush.net.limits import RESERVED_FILES, ConnectionLimiter, ConnectionSettings
from tests.clients import TcpClient, eventually, request
from tests.comet.wire import CometServer
from tests.conftest import reactor

FILES = 100_000


def limiter(clock: Clock, files: int = FILES, **settings: Any) -> ConnectionLimiter:
    return ConnectionLimiter(clock, ConnectionSettings(**settings), files, CometCounters())


def test_the_rate_is_kept_and_what_is_left_gathers_for_a_moment_only() -> None:
    clock = Clock()
    found = limiter(clock, rate=1000)
    assert found.room() == 100
    for _ in range(100):
        found.opened("a")
    assert found.room() == 0
    clock.advance(0.01)
    assert found.room() == 10
    clock.advance(60)
    assert found.room() == 100


def test_the_limit_in_all_is_that_of_the_files_at_most() -> None:
    assert limiter(Clock()).most == FILES - RESERVED_FILES
    assert limiter(Clock(), most=10**6).most == FILES - RESERVED_FILES
    assert limiter(Clock(), most=7).most == 7
    assert limiter(Clock(), files=256).most == 128


def test_the_limits_are_those_of_the_settings_at_any_time() -> None:
    """Connections that came before a limit are counted, too."""
    clock, settings = Clock(), ConnectionSettings(rate=1000)
    found = ConnectionLimiter(clock, settings, FILES, CometCounters())
    for _ in range(3):
        found.opened("a")
    assert found.admits("a")
    for name, value in {"most": 5, "rate": 10, "most_of_address": 3}.items():
        object.__setattr__(settings, name, value)
    clock.advance(60)
    assert (found.most, found.room()) == (5, 1)
    assert not found.admits("a")
    found.closed("a")
    assert found.admits("a")


def test_an_address_that_has_no_connections_takes_no_memory() -> None:
    found = limiter(Clock(), most_of_address=1)
    for number in range(1000):
        assert found.admits(str(number))
        found.opened(str(number))
        assert not found.admits(str(number))
        found.closed(str(number))
    assert not found._addresses


def test_an_ipv6_address_counts_as_its_network_of_64_bits() -> None:
    """Who has one has all of them."""
    found = limiter(Clock(), most_of_address=2)
    for address in ("2001:db8:0:1::1", "2001:db8:0:1:ffff::7"):
        assert found.admits(address)
        found.opened(address)
    assert not found.admits("2001:db8:0:1::2")
    assert found.admits("2001:db8:0:2::1")
    for _ in range(2):
        found.opened("::ffff:192.0.2.1")
    assert not found.admits("192.0.2.1")
    assert found.admits("::ffff:192.0.2.2")
    for address in ("2001:db8:0:1::1", "2001:db8:0:1:ffff::7", "192.0.2.1", "192.0.2.1"):
        found.closed(address)
    assert found.open == 0
    assert not found._addresses


class Plain(Protocol):
    """Its end may fail."""

    transport: Any

    def __init__(self, made: list[Plain], fails: bool) -> None:
        self._fails = fails
        made.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        if self._fails:
            raise RuntimeError


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_connection_that_is_lost_twice_or_fails_as_it_is_lost_is_counted_once(
    in_reactor: Any, tmp_path: Path, kind: str, fails: bool
) -> None:
    """It was counted as lost twice where it was aborted while its end waited, and not at all where its end failed."""
    made: list[Plain] = []
    found = ConnectionLimiter(reactor, ConnectionSettings(most_of_address=3), FILES, CometCounters())
    eager, factory = EagerReactor(reactor, found), Factory.forProtocol(lambda: Plain(made, fails))
    path: Any = str(tmp_path / "socket")
    if kind == "unix":
        port = in_reactor(eager.listenUNIX, path, factory)
    else:
        port = in_reactor(lambda: eager.listenTCP(0, factory, interface="127.0.0.1"))
        path = ("127.0.0.1", port.getHost().port)

    def lose() -> None:
        transport = made[-1].transport
        if not fails:
            transport.abortConnection()
        transport.connectionLost(Failure(CONNECTION_LOST))

    for _ in range(5):
        with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as client:
            client.connect(path)
            eventually(lambda: found.open == 1)
            with suppress(RuntimeError):
                in_reactor(lose)
            assert client.recv(1) == b""
            in_reactor(lambda: None)
            assert (found.open, dict(found._addresses)) == (0, {})
    in_reactor(port.stopListening)


Ports = Callable[..., tuple[int, ConnectionLimiter, CometServer]]


@pytest.fixture
def listen(in_reactor: Any) -> Iterator[Ports]:
    """A comet behind a gate."""
    stops: list[Callable[[], Any]] = []

    def start(**settings: Any) -> tuple[int, ConnectionLimiter, CometServer]:
        server = CometServer(SubscriberSettings(), StoreSettings())
        made = ConnectionLimiter(reactor, ConnectionSettings(**settings), FILES, server.comet.counters)
        port = in_reactor(EagerReactor(reactor, made).listenTCP, 0, TcpFactory(server.comet), 1024, "127.0.0.1")
        stops.extend((lambda: in_reactor(port.stopListening), server.stop))
        return int(port.getHost().port), made, server

    yield start
    for stop in stops:
        stop()


def connections(server: CometServer) -> int:
    counters = server.comet.counters
    return counters.connections_added - counters.connections_removed


def test_who_comes_beyond_the_limit_waits_and_is_let_in_later(listen: Ports) -> None:
    port, _, server = listen(most=2)
    with TcpClient(port) as first, TcpClient(port) as second, TcpClient(port) as third:
        first.subscribe("a")
        second.subscribe("b")
        third.send(request("sub", "c", "30"))
        assert third.is_quiet()
        assert connections(server) == 2
        assert first.is_served()
        second.close()
        assert third.read(4) == b"+h\r\n"
    counters = server.comet.counters
    assert (counters.accept_waits, counters.accept_waits_ended) == (1, 1)  # however often the port has looked


def test_a_storm_of_connections_leaves_turns_to_those_who_are_there(listen: Ports, in_reactor: Any) -> None:
    port, _, server = listen()
    seen: list[int] = []

    def turn() -> None:
        seen.append(server.comet.counters.connections_added)
        if seen[-1] < 200:
            reactor.callLater(0, turn)

    def storm() -> list[socket.socket]:
        """In the reactor's own turn: all of them wait in the accept queue when it ends."""
        turn()
        return [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]

    clients = in_reactor(storm)
    try:
        eventually(lambda: seen[-1] == 200)
        assert max(after - before for before, after in pairwise(seen)) <= ACCEPTS_IN_A_TURN == 32
    finally:
        for client in clients:
            client.close()


def test_many_at_once_are_let_in_one_after_the_other_and_none_is_refused(listen: Ports) -> None:
    port, _, server = listen(rate=50)
    start = time.monotonic()
    clients = [TcpClient(port) for _ in range(40)]
    try:
        clients[0].subscribe("first")
        for number, client in enumerate(clients[1:]):
            client.subscribe(f"k{number}")
        assert time.monotonic() - start > 0.5  # 5 at once, then 50 a second
        assert connections(server) == 40
    finally:
        for client in clients:
            client.close()
    eventually(lambda: connections(server) == 0)


def test_one_address_has_so_many_and_no_more(listen: Ports) -> None:
    port, found, server = listen(most_of_address=2)
    with TcpClient(port) as first, TcpClient(port) as second:
        first.subscribe("a")
        second.subscribe("b")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as third:
            assert third.recv(1) == b""
        assert server.comet.counters.refused_address == 1
    eventually(lambda: found.open == 0)
    with TcpClient(port) as again:
        again.subscribe("a")


def test_the_defaults_stand_in_nobodys_way(listen: Ports) -> None:
    port, _, server = listen()
    clients = [TcpClient(port) for _ in range(300)]
    try:
        for number, client in enumerate(clients):
            client.subscribe(f"k{number}")
    finally:
        for client in clients:
            client.close()
    assert server.comet.counters.refused_address == 0
    assert server.comet.counters.accept_waits == 0
