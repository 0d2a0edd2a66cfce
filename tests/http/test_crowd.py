"""Many connections that send in the same turn of the reactor what is not one simple request each."""

from __future__ import annotations

from typing import Any

import pytest

from gopush.net.http.request import Request, Response
from gopush.net.http.routes import Route
from gopush.net.http.site import Site
from tests.comet.harness import Clock
from tests.http.ways import Transport

CROWD = 50


class _Crowd:
    def __init__(self) -> None:
        self.clock = Clock()
        self.asked = 0
        routes = {
            "/echo": {"GET": Route(self._echo), "POST": Route(self._echo, 2000)},
            "/large": {"GET": Route(self._echo, alone=True)},
        }
        self.site = Site(routes, self.clock, 10, lambda: 0.0)
        self.members = [self.connect() for _ in range(CROWD)]

    def _echo(self, request: Request) -> Response:
        self.asked += 1
        return Response(200, "", request.body)

    def connect(self) -> tuple[Any, Any]:
        channel: Any = self.site.buildProtocol(None)  # type: ignore[no-untyped-call]
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


CHUNKS = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000


def body_bytes(crowd: _Crowd) -> int:
    """Of the bodies that are under way."""
    return sum(len(exchange._body) for channel, _ in crowd.members for exchange in channel.requests)


def test_a_few_small_chunks_are_read_in_each_turn(crowd: _Crowd) -> None:
    """2,048 lines of them, and 128 of each client's first ones."""
    crowd.send(CHUNKS)
    came = body_bytes(crowd)
    assert came <= CROWD * 64
    while came < CROWD * 2000:
        crowd.clock.advance(0)
        came, before = body_bytes(crowd), came
        assert 0 < came - before <= (2048 + 128) / 2 + CROWD
    assert crowd.answered() == []
    crowd.send(b"0\r\n\r\n")
    for _ in range(CROWD):
        crowd.clock.advance(0)
    assert [transport.value()[-2000:] for _, transport in crowd.members] == [b"x" * 2000] * CROWD


def test_a_few_simple_requests_are_answered_in_each_turn_in_the_order_of_their_coming(crowd: _Crowd) -> None:
    """512 of them, and 64 of each client's first ones."""
    crowd.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n" * 640)
    assert crowd.asked == CROWD * 64 + 512
    while crowd.asked < CROWD * 640:
        before = crowd.asked
        crowd.clock.advance(0)
        assert 0 < crowd.asked - before <= 512
    assert [transport.value().count(b"HTTP/1.1 200 ") for _, transport in crowd.members] == [640] * CROWD


def test_fewer_requests_are_answered_in_each_turn_whose_answers_may_be_large(crowd: _Crowd) -> None:
    """16 of them, and each client's first one."""
    crowd.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 64)
    assert crowd.asked == CROWD + 16
    while crowd.asked < CROWD * 64:
        before = crowd.asked
        crowd.clock.advance(0)
        assert 0 < crowd.asked - before <= 16
    assert [transport.value().count(b"HTTP/1.1 200 ") for _, transport in crowd.members] == [64] * CROWD


def test_who_waits_for_its_turn_is_not_idle(crowd: _Crowd) -> None:
    crowd.site.heads.take(1 << 40, lambda: None)
    crowd.members[0][0].dataReceived(CHUNKS)
    channel = crowd.members[0][0]
    channel.expired()
    assert not channel.deaf
    for _ in range(CROWD):
        crowd.clock.advance(0)
    channel.expired()
    assert channel.deaf


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
