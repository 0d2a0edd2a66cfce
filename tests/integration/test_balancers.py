"""A process behind a real HAProxy and a real nginx, set up as docs/operations.md says: who the client is."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.cluster import Node
from tests.clients import eventually, opening, request
from tests.integration.test_proxies import metric, push, slowest
from tests.servers import free_port
from tests.servers.authority import Authority
from tests.servers.balancers import STREAM, haproxy, nginx

pytestmark = pytest.mark.skipif(
    not (shutil.which("haproxy") and shutil.which("nginx") and STREAM.exists()),
    reason="wants haproxy, nginx-light, libnginx-mod-stream",
)

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
WAYS = ("v1", "v2", "v2-ipv6", "tls-ends", "tls-through", "unix", "stream")
"""Of TCP subscribers: PROXY headers of HAProxy, with TLS at HAProxy and behind it, and of nginx."""

HTTP_WAYS = ("haproxy-http", "nginx-http")
TLS = ("tls-ends", "tls-through")


@dataclass(frozen=True)
class Backend:
    """A process and the ports of its balancers."""

    node: Node
    ports: dict[str, int]
    authority: Path

    def connect(self, way: str, client: str) -> socket.socket:
        """A client of this address of this machine's."""
        host = "::1" if ":" in client else "127.0.0.1"
        made = socket.create_connection((host, self.ports[way]), 20, (client, 0))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if way in TLS:
            made = ssl.create_default_context(cafile=self.authority).wrap_socket(made, server_hostname="localhost")
        return made


def from_docs(first: str, last: str, **ports: int) -> str:
    """An example of docs/operations.md, on ports of this test (`listen` and `to`)."""
    example = OPERATIONS.read_text().partition(first)[2].partition(last)[0]
    assert example, f"docs/operations.md has no example {first!r} any more"
    example = re.sub(r"10\.0\.0\.2:\d+", f"127.0.0.1:{ports['to']}", re.sub(r"#.*", "", first + example + last))
    return re.sub(r"(bind |listen )(:|)\d+", rf"\g<1>127.0.0.1:{ports['listen']}", example)


@pytest.fixture(scope="module")
def behind() -> Iterator[Backend]:
    directory = Path(tempfile.mkdtemp(prefix="gopush-balancers-"))
    authority = Authority(directory)
    issued = authority.issue("server")
    both = directory / "both.pem"
    both.write_bytes(issued.certificate.read_bytes() + issued.key.read_bytes())
    ports = {way: free_port() for way in (*WAYS, *HTTP_WAYS, "admin")}
    tls, unix = free_port(), directory / "socket"
    connections = {"address.max": "1", "proxies": "127.0.0.1, unix"}
    node = Node("gopush", "gopush", directory, {"connections": connections, "tcp": {"sndbuf.size": "4096"}})
    to, web, admin = node.ports["tcp"], node.ports["websocket"], node.ports["admin"]
    endpoints = (
        f"haproxy:tcp:{to}:interface=127.0.0.1",
        f"haproxy:ssl:{tls}:interface=127.0.0.1:{issued.endpoint}",
        f"haproxy:unix:{unix}",
    )
    node.set({"base": {"tcp.bind": " ".join(endpoints)}})
    sections = f"""
listen v1
    bind 127.0.0.1:{ports["v1"]}
    server a 127.0.0.1:{to} send-proxy check inter 200ms
listen v2-ipv6
    bind [::1]:{ports["v2-ipv6"]}
    server a 127.0.0.1:{to} send-proxy-v2
listen tls-ends
    bind 127.0.0.1:{ports["tls-ends"]} ssl crt {both}
    server a 127.0.0.1:{to} send-proxy-v2-ssl-cn
listen tls-through
    bind 127.0.0.1:{ports["tls-through"]}
    server a 127.0.0.1:{tls} send-proxy-v2
listen unix
    bind 127.0.0.1:{ports["unix"]}
    server a unix@{unix} send-proxy-v2
"""
    sections += from_docs("listen subscribers", "\n\n", listen=ports["v2"], to=to)
    sections += from_docs("listen websockets", "\n\n", listen=ports["haproxy-http"], to=web)
    http = "".join(
        f"server {{ listen 127.0.0.1:{ports[way]};\n{from_docs('location / {', '}', to=port, listen=0)} }}\n"
        for way, port in (("nginx-http", web), ("admin", admin))
    )
    stream = from_docs("server {                           # nginx, in stream", "}", listen=ports["stream"], to=to)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(node.kill)
        try:
            node.start()
        except RuntimeError as wrong:
            pytest.fail(str(wrong))
        stack.enter_context(haproxy(sections, *(ports[way] for way in (*WAYS, *HTTP_WAYS) if way[0] in "vtu")))
        stack.enter_context(nginx(http, stream, ports["stream"], ports["nginx-http"], ports["admin"]))
        yield Backend(node, ports, authority.path)


def subscribed(client: socket.socket, key: str) -> bytes:
    """What a TCP subscriber is answered."""
    try:
        client.sendall(request("sub", key, "30", "", "1"))
        return client.recv(4)
    except OSError:
        return b""


def shaken(client: socket.socket, key: str, hops: str | None = None) -> bytes:
    """What a WebSocket client is answered."""
    fields = {} if hops is None else {"X-Forwarded-For": hops, "Forwarded": f"for={hops}"}
    client.sendall(opening(f"/sub?key={key}&heartbeat=30&ver=1", **fields))
    return client.recv(4096)[:12]


@pytest.mark.parametrize("way", WAYS)
def test_a_tcp_subscriber_counts_as_itself_and_is_the_one_who_is_slow(behind: Backend, way: str) -> None:
    client, other = ("::1", None) if way == "v2-ipv6" else (f"127.0.0.{10 + WAYS.index(way)}", "127.0.0.99")
    refused = metric(behind.node, "gopush_comet_refused_address_total")
    with ExitStack() as stack:
        slow = stack.enter_context(behind.connect(way, client))
        assert subscribed(slow, way) == b"+h\r\n"
        try:
            more = stack.enter_context(behind.connect(way, client))
        except OSError:
            pass  # TLS ends before it has begun
        else:
            assert subscribed(more, way) == b""
        assert metric(behind.node, "gopush_comet_refused_address_total") == refused + 1
        if other:
            with behind.connect(way, other) as another:
                assert subscribed(another, way) == b"+h\r\n"
        push(behind.node, 3 << 20, way)
        host, port = slow.getsockname()[:2]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        eventually(lambda: shown in [each["peer"] for each in slowest(behind.node)])
    assert metric(behind.node, "gopush_comet_refused_proxy_total") == 0


@pytest.mark.parametrize("way", HTTP_WAYS)
def test_a_websocket_client_counts_as_itself_whatever_it_says_of_itself(behind: Backend, way: str) -> None:
    client, other = f"127.0.0.{30 + HTTP_WAYS.index(way)}", f"127.0.0.{40 + HTTP_WAYS.index(way)}"
    with (
        behind.connect(way, client) as slow,
        behind.connect(way, client) as more,
        behind.connect(way, other) as another,
    ):
        assert shaken(slow, way) == b"HTTP/1.1 101"
        assert shaken(more, way, "203.0.113.7") == b"HTTP/1.1 429"
        assert shaken(another, way, f"203.0.113.7, {client}") == b"HTTP/1.1 101"
        push(behind.node, 3 << 20, way)
        eventually(lambda: {client, other} & {each["peer"] for each in slowest(behind.node)} != set())


def test_an_admin_port_without_keys_is_closed_to_who_comes_through_a_proxy(behind: Backend) -> None:
    with behind.connect("admin", "127.0.0.50") as client:
        line = b"POST /1/admin/push/private?key=k&expire=60 HTTP/1.1\r\nHost: localhost\r\n"
        client.sendall(line + b"Content-Length: 1\r\n\r\n1")
        assert client.recv(12) == b"HTTP/1.1 403"
    assert metric(behind.node, "gopush_web_proxied_calls_total") == 1


def test_health_checks_of_a_balancer_are_let_in(behind: Backend) -> None:
    """HAProxy asks with PROXY UNKNOWN and with LOCAL, and would let nobody in where that was refused."""

    def asked() -> float:
        return metric(behind.node, "gopush_comet_connections_added")

    before = asked()
    eventually(lambda: asked() > before + 10)
    assert metric(behind.node, "gopush_comet_refused_proxy_total") == 0
    with behind.connect("v1", "127.0.0.60") as one, behind.connect("v2", "127.0.0.61") as two:
        assert subscribed(one, "checks") == subscribed(two, "checks") == b"+h\r\n"
