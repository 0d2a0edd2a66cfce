"""A connection that ends is freed by reference counts alone: what the collector has frozen would stay for ever."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest

from gopush.net.eager import EagerReactor
from tests.conftest import InReactor, reactor
from tests.fixtures import left_to_the_collector
from tests.http.test_channel import poll
from tests.http.ways import Ways

HEAD = b"POST %b HTTP/1.1\r\nHost: h\r\n"
SENT = {
    "answered": HEAD % b"/echo" + b"Content-Length: 4\r\n\r\nbody",
    "answered the long way": HEAD % b"/echo" + b"Connection: close\r\nContent-Length: 4\r\n\r\nbody",
    "cut within a head": HEAD % b"/echo",
    "cut within a body": HEAD % b"/echo" + b"Content-Length: 90\r\n\r\n" + b"x" * 80,
    "cut within a chunk": HEAD % b"/echo" + b"Transfer-Encoding: chunked\r\n\r\n50\r\n" + b"x" * 40,
    "cut within a stream": HEAD % b"/stream" + b"Content-Length: 9000\r\n\r\n" + b"x" * 8000,
    "refused": HEAD % b"/echo" + b"Content-Length: 101\r\n\r\n" + b"x" * 50,
    "malformed": b"GARBAGE\r\n\r\n",
    "pages": b"GET /pages HTTP/1.1\r\nHost: h\r\n\r\n",
}
OF_A_CONNECTION = {"HttpChannel", "Exchange", "Request", "Owed", "EagerServer", "Upper"}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_nothing_waits_for_the_collector(in_reactor: InReactor, sent: bytes, reset: bool) -> None:
    ways = Ways(short=True)
    ways.site.clock = reactor
    listener: Any = in_reactor(EagerReactor(reactor).listenTCP, 0, ways.site, 50, "127.0.0.1")

    def connect() -> None:
        opened = ways.opened
        client = socket.create_connection(("127.0.0.1", listener.getHost().port))
        client.sendall(sent)
        poll(lambda: ways.opened > opened)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        poll(lambda: not ways.site.channels)

    connect()
    in_reactor(gc.collect)
    gc.freeze()  # what other tests have left is not asked for
    gc.disable()
    try:
        for _ in range(3):
            connect()
        assert in_reactor(left_to_the_collector, OF_A_CONNECTION) == []
    finally:
        gc.enable()
        in_reactor(listener.stopListening)
