"""What clients send after the last word: it is read and thrown away, but not by all of a crowd at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from gopush.comet.counters import CometCounters
from gopush.net import accept
from gopush.net import transport as wire
from gopush.net.eager import EagerReactor
from gopush.net.limits import ConnectionLimiter, ConnectionSettings
from tests.conftest import InReactor, reactor
from tests.fixtures import eventually

CROWD = 100
WORD = b"the last word"


class Refusing(Protocol):
    """Says its last word at the first byte."""

    factory: Any
    said = False

    def connectionMade(self) -> None:
        self.factory.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self.said:
            self.factory.leftovers += 1
            return
        self.said = True
        self.factory.refused += 1
        wire.sender(self.transport)(WORD)
        wire.finish(self.transport)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.discard(self)


class Refusals(Factory):
    protocol = Refusing
    noisy = False

    def __init__(self) -> None:
        self.open: set[Refusing] = set()
        self.refused = self.leftovers = 0
        self.counters = CometCounters()


@pytest.fixture
def crowd(in_reactor: InReactor) -> Iterator[tuple[Refusals, list[socket.socket]]]:
    """Clients that were all refused, and have not read why."""
    factory = Refusals()
    limiter = ConnectionLimiter(reactor, ConnectionSettings(), 10_000, factory.counters)
    port = in_reactor(EagerReactor(reactor, limiter).listenTCP, 0, factory, interface="127.0.0.1")
    address = ("127.0.0.1", port.getHost().port)
    clients = [socket.create_connection(address, timeout=20) for _ in range(CROWD)]
    for client in clients:
        client.send(b"x")
    eventually(lambda: factory.refused == CROWD)
    yield factory, clients
    for client in clients:
        client.close()
    in_reactor(port.stopListening)


def send_on(in_reactor: InReactor, factory: Refusals, clients: list[socket.socket]) -> list[int]:
    """All in one turn; how many pieces had been read in each turn after it."""
    seen: list[int] = []

    def turn() -> None:
        seen.append(factory.leftovers)
        if len(seen) < 1000:
            reactor.callLater(0, turn)

    def storm() -> None:
        for client in clients:
            client.send(b"and more")
        turn()

    in_reactor(storm)
    eventually(lambda: len(seen) == 1000)
    return seen


def test_a_few_are_read_in_each_turn_and_no_reset_overtakes_the_word(
    crowd: tuple[Refusals, list[socket.socket]], in_reactor: InReactor
) -> None:
    factory, clients = crowd
    seen = send_on(in_reactor, factory, clients)
    assert seen[-1] == CROWD
    assert factory.counters.cut_off_leftovers == 0
    assert 0 < max(after - before for before, after in pairwise(seen)) <= accept.LEFTOVERS_IN_A_TURN
    for client in clients:
        assert client.recv(100) == WORD
        assert client.recv(100) == b""
        client.close()
    eventually(lambda: not factory.open)


def test_of_too_large_a_crowd_the_rest_is_cut_off(
    crowd: tuple[Refusals, list[socket.socket]], in_reactor: InReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory, clients = crowd
    monkeypatch.setattr(accept, "MOST_LEFTOVERS", 10)
    seen = send_on(in_reactor, factory, clients)
    most = accept.LEFTOVERS_IN_A_TURN + 10
    assert 0 < seen[-1] <= 2 * most
    eventually(lambda: len(factory.open) <= seen[-1])
    assert factory.counters.cut_off_leftovers == CROWD - len(factory.open)
    for client in clients:
        client.close()
    eventually(lambda: not factory.open)
