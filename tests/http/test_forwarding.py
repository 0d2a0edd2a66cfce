"""Connections of a proxy: each counts as that of the client whose request it bears, while it is answered."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from gopush.net.eager import EagerReactor
from gopush.net.http.request import Promise, Request, Response
from gopush.net.http.routes import Route
from gopush.net.http.site import Site
from gopush.net.limits import ConnectionLimiter, ConnectionSettings, LimiterCounters
from tests.conftest import InReactor, reactor
from tests.http.test_channel import poll


class Door:
    """A site that answers when it is told to, and says whom it takes its callers for."""

    def __init__(self, in_reactor: InReactor) -> None:
        self._in_reactor = in_reactor
        self.asked: list[tuple[Request, Promise]] = []
        self.counters = LimiterCounters()
        settings = ConnectionSettings(most_of_address=1, proxies=("127.0.0.0/8",))
        self.limiter = ConnectionLimiter(reactor, settings, 10_000, self.counters)
        site = Site({"/": {"GET": Route(self._ask), "POST": Route(self._ask)}}, reactor, 60.0)
        self._port: Any = in_reactor(EagerReactor(reactor, self.limiter).listenTCP, 0, site, 50, "127.0.0.1")

    def _ask(self, request: Request) -> Promise:
        promise = Promise()
        self.asked.append((request, promise))
        return promise

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port.getHost().port), 20)

    def answer(self) -> None:
        asked, self.asked = self.asked, []
        for request, promise in asked:
            self._in_reactor(promise.give, Response(200, "text/plain", request.peer.encode()))

    def stop(self) -> None:
        self._in_reactor(self._port.stopListening)


@pytest.fixture
def door(in_reactor: InReactor) -> Iterator[Door]:
    found = Door(in_reactor)
    yield found
    found.stop()


SHORT = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: %b\r\n\r\n"
LONG = (
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: %b\r\n\r\n"
)
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: %b\r\n\r\n2\r\nab\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_of", [SHORT, LONG, CHUNKED], ids=["short", "long", "chunked"])
def test_a_client_has_its_requests_under_way(door: Door, request_of: bytes) -> None:
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(door.connect()) for _ in range(3))
        first.sendall(request_of % b"203.0.113.7")
        third.sendall(request_of % b"203.0.113.8")
        poll(lambda: len(door.asked) == 2)
        second.sendall(request_of % b"203.0.113.7")
        assert second.recv(4096).startswith(b"HTTP/1.1 429")
        door.answer()
        assert first.recv(4096).endswith(b"203.0.113.7")
        assert third.recv(4096).endswith(b"203.0.113.8")
        third.sendall(request_of % b"203.0.113.7")
        poll(lambda: len(door.asked) == 1)
        door.answer()
        assert third.recv(4096).endswith(b"203.0.113.7")
        third.sendall(request_of % b"203.0.113.7")  # who breaks off leaves nothing
        poll(lambda: len(door.asked) == 1)
        third.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    poll(lambda: door.limiter.open == 0)
    assert door.counters.refused_address == 1
    assert not door.limiter._addresses


def test_requests_of_several_clients_in_one_segment_are_each_ones_own(door: Door) -> None:
    with door.connect() as client:
        client.sendall(SHORT % b"203.0.113.7" + SHORT % b"203.0.113.8" + SHORT % b"203.0.113.7")
        for address in (b"203.0.113.7", b"203.0.113.8", b"203.0.113.7"):
            poll(lambda: len(door.asked) == 1)
            door.answer()
            assert client.recv(4096).endswith(address)
