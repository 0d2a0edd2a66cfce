"""A burst to one key with many subscribers that read all there is: each gets all of it, and nobody is closed."""

from __future__ import annotations

import re
import selectors
import threading
import time

from tests.clients import TcpClient
from tests.http.client import Client
from tests.integration.systems import embedded

SUBSCRIBERS = 500
MESSAGES = 8000
RCVBUF = 1 << 20
PATIENCE_SECONDS = 60.0
INI = {"storage": {"type": "memory", "store": "20"}, "channel": {"maxsubscriber": str(SUBSCRIBERS)}}
LINES = b"".join(b'{"k":"crowd","m":%d,"expire":600}\n' % number for number in range(MESSAGES))
LAST = b'"msg":%d,' % (MESSAGES - 1)


def push(port: int) -> None:
    with Client(port) as client:
        client.request("POST", "/1/admin/push/bulk", LINES)


def received(clients: list[TcpClient]) -> list[bytes]:
    """What each has got once its last message is there, its connection has ended, or patience has."""
    got = {client: bytearray() for client in clients}
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        while selector.get_map() and time.monotonic() - began < PATIENCE_SECONDS:
            for key, _ in selector.select(1.0):
                data = key.data.socket.recv(1 << 20)
                got[key.data] += data
                if not data or LAST in got[key.data][-100:]:
                    selector.unregister(key.fileobj)
    return list(map(bytes, got.values()))


def test_a_burst_reaches_everybody_who_reads() -> None:
    with embedded(INI) as system:
        (node,) = system.nodes
        clients = [TcpClient(node.ports["tcp"], RCVBUF).subscribe("crowd", "30", "", "1") for _ in range(SUBSCRIBERS)]
        pusher = threading.Thread(target=push, args=(node.ports["admin"],), daemon=True)
        pusher.start()
        got = received(clients)
        pusher.join(PATIENCE_SECONDS)
        for client in clients:
            client.close()
    assert len(set(got)) == 1
    assert list(map(int, re.findall(rb'"msg":(\d+)', got[0]))) == list(range(MESSAGES))
