"""Connections that are read together do what the reactor's own do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.protocol import ClientFactory, Protocol

from gopush.net.gathering import GatheringReactor
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged, eventually


class Kept(Protocol):
    """Keeps what comes; raises where it is told to."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.over = ""

    def dataReceived(self, data: bytes) -> None:
        if data == b"wrong":
            raise ValueError("mine")
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.over = reason.type.__name__


class Factory(ClientFactory):
    noisy = False

    def __init__(self) -> None:
        self.made: list[Kept] = []
        self.failed = ""

    def buildProtocol(self, addr: Any) -> Kept:
        self.made.append(Kept())
        return self.made[-1]

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed = reason.type.__name__


class Gathered:
    def __init__(self, in_reactor: InReactor) -> None:
        self.reactor: Any = in_reactor(GatheringReactor, reactor)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._in_reactor = in_reactor

    def connect(self) -> tuple[Kept, socket.socket]:
        factory = Factory()
        self._in_reactor(self.reactor.connectTCP, "127.0.0.1", self.port, factory)
        peer, _ = self.listener.accept()
        peer.settimeout(20)
        eventually(lambda: factory.made and factory.made[0].transport)
        return factory.made[0], peer


@pytest.fixture
def gathered(in_reactor: InReactor) -> Iterator[Gathered]:
    made = Gathered(in_reactor)
    yield made
    made.listener.close()


def test_each_gets_its_own_until_it_ends(gathered: Gathered, in_reactor: InReactor) -> None:
    for _ in range(2):  # with none in between
        pairs = [gathered.connect() for _ in range(300)]
        for number, (_, peer) in enumerate(pairs):
            peer.sendall(b"%d" % number)
        eventually(lambda pairs=pairs: all(kept.got for kept, _ in pairs))  # type: ignore[misc]
        assert [kept.got for kept, _ in pairs] == [b"%d" % number for number in range(300)]
        for kept, peer in pairs[:100]:
            in_reactor(kept.transport.write, b"back")
            assert peer.recv(10) == b"back"
            peer.close()
        for kept, peer in pairs[100:]:
            in_reactor(kept.transport.abortConnection)
            peer.close()
        eventually(lambda pairs=pairs: all(kept.over for kept, _ in pairs))  # type: ignore[misc]
        assert {kept.over for kept, _ in pairs[:100]} == {"ConnectionDone"}
        assert in_reactor(lambda: len(gathered.reactor._gathering._readers)) == 0


def test_who_pauses_is_not_read(gathered: Gathered, in_reactor: InReactor) -> None:
    (paused, first), (other, second) = gathered.connect(), gathered.connect()
    in_reactor(paused.transport.pauseProducing)
    first.sendall(b"a")
    second.sendall(b"b")
    eventually(lambda: other.got == b"b")
    assert paused.got == b""
    in_reactor(paused.transport.resumeProducing)
    eventually(lambda: paused.got == b"a")
    for kept, peer in ((paused, first), (other, second)):
        peer.close()
        eventually(lambda kept=kept: kept.over)  # type: ignore[misc]


def test_an_error_ends_its_connection_alone(gathered: Gathered, logged: Logged) -> None:
    (wrong, first), (other, second) = gathered.connect(), gathered.connect()
    first.sendall(b"wrong")
    eventually(lambda: wrong.over == "ConnectionLost")
    assert first.recv(10) == b""
    assert len(logged.tracebacks()) == 1
    second.sendall(b"on")
    eventually(lambda: other.got == b"on")
    second.close()
    eventually(lambda: other.over)


def test_who_cannot_be_reached_hears_of_it(gathered: Gathered, in_reactor: InReactor) -> None:
    gathered.listener.close()
    factory = Factory()
    in_reactor(gathered.reactor.connectTCP, "127.0.0.1", gathered.port, factory)
    eventually(lambda: factory.failed == "ConnectionRefusedError")
