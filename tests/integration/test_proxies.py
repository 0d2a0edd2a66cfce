"""A process behind balancers: what limits and lists see of its clients, and what a proxy's word opens: nothing."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cluster import Node
from tests.clients import opening, request

START = Callable[..., Node]
CLIENT, OTHER = "203.0.113.7", "203.0.113.8"
SUBSCRIBE = request("sub", "k", "30", "", "1")


@pytest.fixture
def start() -> Iterator[START]:
    """Start `twistd gopush`; `proxied`: the ports that are behind a balancer."""
    directory = Path(tempfile.mkdtemp(prefix="gopush-proxies-"))
    nodes: list[Node] = []

    def make(connections: dict[str, str], *proxied: str) -> Node:
        ini = {"connections": connections, "tcp": {"sndbuf.size": "4096"}}
        nodes.append(Node("gopush", "gopush", directory, ini))
        for port in proxied:
            bind = f"haproxy:tcp:{nodes[0].ports[port]}:interface=127.0.0.1"
            nodes[0].set({"base": {f"{port}.bind": bind}})
        try:
            nodes[0].start()
        except RuntimeError as wrong:
            pytest.fail(str(wrong))
        return nodes[0]

    yield make
    for node in nodes:
        node.kill()
    shutil.rmtree(directory)


def connect(node: Node, port: str) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", node.ports[port]))
    return client


def call(node: Node, port: str, line: str, body: bytes = b"", field: str = "") -> bytes:
    with connect(node, port) as client:
        head = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{field}\r\n"
        client.sendall(head.encode() + body)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def push(node: Node, size: int = 1, key: str = "k") -> None:
    answer = call(node, "admin", f"POST /1/admin/push/private?key={key}&expire=60", b'"' + b"x" * size + b'"')
    assert answer.endswith(b'{"ret":0}')


def slowest(node: Node) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 30
    while True:
        data = json.loads(call(node, "admin", "GET /1/admin/slowest").partition(b"\r\n\r\n")[2])["data"]
        found: list[dict[str, Any]] = next(value for value in data.values() if isinstance(value, list))
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def metric(node: Node, name: str) -> float:
    lines = call(node, "stat", "GET /metrics").decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_tcp_client_behind_a_balancer_is_the_one_who_is_slow(start: START) -> None:
    node = start({"address.max": "1"}, "tcp")
    header = f"PROXY TCP4 {CLIENT} 127.0.0.1 4711 6969\r\n".encode()
    with connect(node, "tcp") as slow, connect(node, "tcp") as more, connect(node, "tcp") as health:
        slow.sendall(header + SUBSCRIBE)
        assert slow.recv(4) == b"+h\r\n"
        more.sendall(header + SUBSCRIBE)
        assert more.recv(4) == b""
        health.sendall(b"PROXY UNKNOWN\r\n" + SUBSCRIBE)
        assert health.recv(4) == b"+h\r\n"
        health.close()
        push(node, 1 << 20)
        assert [each["peer"] for each in slowest(node)] == [f"{CLIENT}:4711"]
    assert metric(node, "gopush_comet_refused_address_total") == 1


def test_a_websocket_client_behind_a_proxy_is_the_one_who_counts(start: START) -> None:
    node = start({"address.max": "1", "proxies": "127.0.0.1"})

    def handshake(client: socket.socket, hops: str) -> bytes:
        client.sendall(opening("/sub?key=k&heartbeat=30&ver=1", **{"X-Forwarded-For": hops}))
        return client.recv(12)

    with ExitStack() as stack:
        clients = [stack.enter_context(connect(node, "websocket")) for _ in range(4)]
        assert handshake(clients[0], f"192.0.2.1, {CLIENT}") == b"HTTP/1.1 101"
        assert handshake(clients[1], CLIENT) == b"HTTP/1.1 429"
        assert handshake(clients[2], f"{CLIENT}, {OTHER}, 127.0.0.1") == b"HTTP/1.1 101"
        assert handshake(clients[3], "nonsense") == b"HTTP/1.1 101"
        clients[2].close()
        clients[3].close()
        push(node, 1 << 20)
        assert [each["peer"] for each in slowest(node)] == [CLIENT]


def test_nobody_else_is_believed(start: START) -> None:
    node = start({"address.max": "1"})
    with connect(node, "websocket") as first, connect(node, "websocket") as second:
        first.sendall(opening("/sub?key=k&heartbeat=30&ver=1", **{"X-Forwarded-For": CLIENT}))
        assert first.recv(12) == b"HTTP/1.1 101"
        answer = b""
        with suppress(ConnectionResetError):  # it was closed before it had sent this
            second.sendall(opening("/sub?key=k&heartbeat=30&ver=1", **{"X-Forwarded-For": OTHER}))
            answer = second.recv(12)
        assert answer in (b"", b"HTTP/1.1 429")


def test_a_look_up_counts_as_its_client_while_it_is_answered(start: START) -> None:
    """A proxy holds connections and sends requests of many over each."""
    node = start({"address.max": "2", "proxies": "127.0.0.1"})
    line = b"GET /1/server/get?k=k&p=2 HTTP/1.1\r\nHost: localhost\r\n%b\r\n"

    def answered(client: socket.socket, field: bytes) -> bytes:
        client.sendall(line % field)
        return client.recv(4096)[:12]

    with ExitStack() as stack:
        held = [stack.enter_context(connect(node, "http")) for _ in range(6)]
        for client in held:
            for number in range(4):
                assert answered(client, b"X-Forwarded-For: 198.51.100.%d\r\n" % number) == b"HTTP/1.1 200"
            assert answered(client, b'Forwarded: for="[2001:db8::1]:80"\r\n') == b"HTTP/1.1 200"
            assert answered(client, b"") == b"HTTP/1.1 200"
        piped = held[0]
        piped.sendall(b"".join(line % (b"X-Forwarded-For: %b\r\n" % CLIENT.encode()) for _ in range(10)))
        received = b""
        while received.count(b'{"ret":0') < 10:
            piece = piped.recv(4096)
            assert piece
            received += piece
    assert metric(node, "gopush_web_refused_address_total") == 0


def test_a_proxys_request_is_not_this_machines(start: START) -> None:
    node = start({"proxies": "127.0.0.1"})
    line = "POST /1/admin/push/private?key=k&expire=60"
    assert call(node, "admin", line, b"1").endswith(b'{"ret":0}')
    for field in (f"X-Forwarded-For: {CLIENT}\r\n", f"Forwarded: for={CLIENT}\r\n", "X-Forwarded-For: 127.0.0.1\r\n"):
        assert call(node, "admin", line, b"1", field).startswith(b"HTTP/1.1 403"), field
        assert call(node, "admin", "GET /1/admin/slowest", field=field).startswith(b"HTTP/1.1 403"), field


def test_an_admin_port_behind_a_balancer_wants_keys(start: START) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"admin\.bind: haproxy:.*\[admin\] keys"):
        start({}, "admin")
