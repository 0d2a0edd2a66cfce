"""Many connections whose heads come in the same turn of the reactor, none of them for the short cut."""

from __future__ import annotations

from typing import Any

import pytest

from gopush.net.http.request import Response
from gopush.net.http.routes import Route
from gopush.net.http.site import Site
from tests.comet.harness import Clock
from tests.http.ways import Transport

CROWD = 50


class _Crowd:
    def __init__(self) -> None:
        self.clock = Clock()
        self._site = Site({"/echo": {"GET": Route(lambda _: Response(200, "", b""))}}, self.clock, 10, lambda: 0.0)
        self.members = [self.connect() for _ in range(CROWD)]

    def connect(self) -> tuple[Any, Any]:
        channel: Any = self._site.buildProtocol(None)  # type: ignore[no-untyped-call]
        transport: Any = Transport()  # type: ignore[no-untyped-call]
        channel.makeConnection(transport)
        return channel, transport

    def answered(self) -> list[int]:
        return [number for number, (_, transport) in enumerate(self.members) if transport.value()]

    def send(self, data: bytes) -> None:
        for channel, _ in self.members:
            channel.dataReceived(data)


@pytest.fixture
def crowd() -> _Crowd:
    return _Crowd()


def test_a_few_heads_are_read_in_each_turn_in_the_order_of_their_coming(crowd: _Crowd) -> None:
    crowd.send(b"GET /echo HTTP/1.0\r\nX: %b\r\n\r\n" % (b"x" * 3000))
    turns = 1
    while len(crowd.answered()) < CROWD:
        assert crowd.answered() == list(range(turns * 17))
        crowd.clock.advance(0)
        turns += 1
    assert turns == 1 + CROWD // 17


def test_large_heads_take_more_turns(crowd: _Crowd) -> None:
    crowd.send(b"GET /echo HTTP/1.0\r\nX: %b\r\n\r\n" % (b"x" * 11_000))
    assert crowd.answered() == list(range(4))
    for _ in range(CROWD):
        crowd.clock.advance(0)
    assert len(crowd.answered()) == CROWD


@pytest.mark.parametrize("behind", [b"", b"x" * 9000])
def test_small_heads_are_read_at_once_whatever_follows_them(crowd: _Crowd, behind: bytes) -> None:
    crowd.send(b"GET /echo HTTP/1.0\r\n\r\n" + behind)
    assert len(crowd.answered()) == CROWD


def test_simple_requests_do_not_wait_behind_others(crowd: _Crowd) -> None:
    crowd.send(b"GET /echo HTTP/1.0\r\nX: %b\r\n\r\n" % (b"x" * 11_000))
    channel, transport = crowd.connect()
    channel.dataReceived(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 200 ")


def test_who_leaves_while_it_waits_holds_up_nobody(crowd: _Crowd) -> None:
    crowd.send(b"GET /echo HTTP/1.0\r\nX: %b\r\n\r\n" % (b"x" * 3000))
    for channel, _ in crowd.members[17:-1]:
        channel.connectionLost(None)
    crowd.clock.advance(0)
    assert crowd.answered() == [*range(17), CROWD - 1]


def test_an_error_of_one_is_not_the_others(crowd: _Crowd) -> None:
    crowd.send(b"GET /echo HTTP/1.0\r\nX: %b\r\n\r\n" % (b"x" * 3000))
    crowd.members[17][0].inbox = 1  # a mistake of ours
    with pytest.raises(TypeError):
        crowd.clock.advance(0)
    crowd.clock.advance(0)
    crowd.clock.advance(0)
    assert crowd.answered() == [number for number in range(CROWD) if number != 17]
