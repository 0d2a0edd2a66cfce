"""A process behind a real HAProxy and a real nginx, whose configurations are those of docs/balancers.md."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gopush_client import Subscriber
from tests.chaos.cluster import Node
from tests.clients import eventually, opening, request
from tests.integration.test_proxies import call, metric, push, slowest
from tests.servers import free_port
from tests.servers.authority import Authority
from tests.servers.balancers import STREAM, haproxy, nginx

pytestmark = pytest.mark.skipif(
    not (shutil.which("haproxy") and shutil.which("nginx") and STREAM.exists()),
    reason="wants haproxy, nginx-light, libnginx-mod-stream",
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "balancers.md").read_text()
GOPUSH, HAPROXY, NGINX, NGINX_STREAM = re.findall(r"```(?:ini|haproxy|nginx)\n(.*?)```", PAGE, re.DOTALL)
LISTENED = (443, 6968, 6978, 6969, 6979, 7443, 7453)
"""What both configurations listen on; 443 for HTTP, 6968 and 6978 for WebSocket, the rest for TCP."""

OF_THE_PAGE = tuple(f"{balancer}-{port}" for balancer in ("haproxy", "nginx") for port in LISTENED)
OWN_WAYS = ("v1", "v2-ipv6", "tls-through", "unix")
WAYS = (*OWN_WAYS, "haproxy-6969", "haproxy-7453", "nginx-6979", "nginx-7443")
"""Of TCP subscribers: PROXY headers of HAProxy and of nginx, with TLS at them and behind them."""

HTTP_WAYS = ("haproxy-6968", "nginx-6978")
PLAIN = ("6969", "6979")


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
        if way == "tls-through" or (way in OF_THE_PAGE and not way.endswith(PLAIN)):
            made = ssl.create_default_context(cafile=self.authority).wrap_socket(made, server_hostname="localhost")
        return made


def placed(block: str, node: Node, directory: Path, listen: dict[int, int]) -> str:
    """A configuration of docs/balancers.md, on ports of this test: one process is both members."""
    member = {"8090": node.address("http"), "6968": node.address("websocket"), "6969": node.address("tcp")}
    block = re.sub(r"10\.0\.0\.[23]:(\d+)", lambda found: member[found[1]], block)
    block = re.sub(r"(bind :|listen )(\d+)", lambda f: f"{f[1].rstrip(':')}127.0.0.1:{listen[int(f[2])]}", block)
    return re.sub(r"/etc/(?:haproxy|nginx)/push", str(directory / "push"), block)


def settings(node: Node, listen: dict[int, int], *more: str) -> dict[str, dict[str, str]]:
    """gopush's settings in docs/balancers.md, on ports of this test. `more`: where TCP clients connect besides."""
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(GOPUSH.replace("10.0.0.7", "127.0.0.1, unix"))
    own = {"8090": node.ports["http"], "6968": node.ports["websocket"], "6969": node.ports["tcp"]}
    found = {section: dict(parser[section]) for section in parser.sections()}
    for name, value in found["base"].items():
        value = re.sub(r"push\.example\.org:(\d+)", lambda at: f"localhost:{listen[int(at[1])]}", value)
        found["base"][name] = re.sub(r"tcp:(\d+)", lambda at: f"tcp:{own[at[1]]}:interface=127.0.0.1", value)
    found["base"]["tcp.bind"] = " ".join((found["base"]["tcp.bind"], *more))
    found["connections"]["address.max"] = "1"
    return found


@pytest.fixture(scope="module")
def behind() -> Iterator[Backend]:
    directory = Path(tempfile.mkdtemp(prefix="gopush-balancers-"))
    authority = Authority(directory)
    issued = authority.issue("push")
    key = issued.key.read_bytes()
    (directory / "push.pem").write_bytes(issued.certificate.read_bytes() + key)
    ports = {way: free_port() for way in (*OWN_WAYS, *OF_THE_PAGE, "admin")}
    listen = {name: {port: ports[f"{name}-{port}"] for port in LISTENED} for name in ("haproxy", "nginx")}
    tls, unix = free_port(), directory / "socket"
    node = Node("gopush", "gopush", directory, {"tcp": {"sndbuf.size": "4096"}})
    more = (f"haproxy:ssl:{tls}:interface=127.0.0.1:{issued.endpoint}", f"haproxy:unix:{unix}")
    node.set(settings(node, listen["haproxy"], *more))
    sections = f"""
listen v1
    bind 127.0.0.1:{ports["v1"]}
    server a {node.address("tcp")} send-proxy check inter 200ms
listen v2-ipv6
    bind [::1]:{ports["v2-ipv6"]}
    server a {node.address("tcp")} send-proxy-v2
listen tls-through
    bind 127.0.0.1:{ports["tls-through"]}
    server a 127.0.0.1:{tls} send-proxy-v2
listen unix
    bind 127.0.0.1:{ports["unix"]}
    server a unix@{unix} send-proxy-v2
"""
    sections += placed(HAPROXY, node, directory, listen["haproxy"])
    admin = (
        f"server {{ listen 127.0.0.1:{ports['admin']}; location / {{ proxy_pass http://{node.address('admin')}; }} }}"
    )
    http = placed(NGINX, node, directory, listen["nginx"]) + admin
    stream = placed(NGINX_STREAM, node, directory, listen["nginx"])
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(node.kill)
        try:
            node.start()
        except RuntimeError as wrong:
            pytest.fail(str(wrong))
        stack.enter_context(haproxy(sections, *(ports[way] for way in OWN_WAYS), *listen["haproxy"].values()))
        stack.enter_context(nginx(http, stream, ports["admin"], *listen["nginx"].values()))
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
    with behind.connect("v1", "127.0.0.60") as one, behind.connect("haproxy-6969", "127.0.0.61") as two:
        assert subscribed(one, "checks") == subscribed(two, "checks") == b"+h\r\n"


_clients = (f"127.0.0.{last}" for last in range(100, 200))


def curl(behind: Backend, way: str, path: str, *more: str) -> subprocess.Popen[str]:
    """A client of an address that nobody has had, over TLS."""
    address = f"https://localhost:{behind.ports[way]}{path}"
    command = ["curl", "-sSN", "--max-time", "60", "--cacert", str(behind.authority), "--interface", next(_clients)]
    return subprocess.Popen([*command, *more, address], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
@pytest.mark.parametrize("balancer", ["haproxy", "nginx"])
def test_each_event_of_a_stream_comes_at_once(behind: Backend, balancer: str, http: str) -> None:
    """Each is read before the next one is pushed."""
    key = f"{balancer}{http}"
    with curl(behind, f"{balancer}-443", f"/sub?key={key}&heartbeat=30&mid=0", http, "-D", "-") as streaming:
        try:
            assert streaming.stdout
            lines = iter(streaming.stdout.readline, "")
            assert next(lines).split()[:2] == ["HTTP/2" if http == "--http2" else "HTTP/1.1", "200"]
            for number in range(3):
                push(behind.node, number, key)
                assert f'{{"msg":"{"x" * number}"' in next(line for line in lines if line.startswith("data:"))
        finally:
            streaming.kill()


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
@pytest.mark.parametrize("balancer", ["haproxy", "nginx"])
def test_a_stream_whose_client_has_left_gives_its_place_back(behind: Backend, balancer: str, http: str) -> None:
    """Long before a heartbeat (240 s) or a time-out of the balancer (75 s) ends it."""
    key = f"left-{balancer}{http}"

    def count() -> int:
        body = json.dumps({"k": [key]}).encode()
        answer = call(behind.node, "admin", "POST /1/admin/presence", body).partition(b"\r\n\r\n")[2]
        (found,) = json.loads(answer)["data"]["presence"]
        return int(found["count"])

    with curl(behind, f"{balancer}-443", f"/sub?key={key}&heartbeat=240", http) as streaming:
        try:
            eventually(lambda: count() == 1)
        finally:
            streaming.kill()
    eventually(lambda: count() == 0)


@pytest.mark.parametrize(
    ("balancer", "check"), [("haproxy", ""), ("haproxy", " disabled"), ("nginx", "")], ids=["unseen", "seen", "nginx"]
)
def test_who_finds_nobody_hears_so_but_an_event_stream_to_come_back(behind: Backend, balancer: str, check: str) -> None:
    """A browser's EventSource gives up for good at any status but 200. `check`: what HAProxy's checks have seen of the
    members, nothing yet or that they are dead.
    """
    directory, listen = behind.authority.parent, {port: free_port() for port in LISTENED}
    absent = Node("gopush", "absent", directory, {})
    alone = Backend(absent, {"443": listen[443]}, behind.authority)
    if balancer == "haproxy":
        running = haproxy(placed(HAPROXY.replace(" check\n", f"{check}\n"), absent, directory, listen), listen[443])
    else:
        running = nginx(placed(NGINX, absent, directory, listen), "", listen[443])
    with running, curl(alone, "443", "/sub?key=k&heartbeat=30", "-D", "-") as streaming:
        assert streaming.stdout
        head, _, body = streaming.stdout.read().partition("\n\n")
        fields = head.lower().split("\n")
        assert fields[0].split()[1] == "200"
        assert {"content-type: text/event-stream", "access-control-allow-origin: *"} <= set(fields)
        assert body == "retry: 3000\n\n"
        with curl(alone, "443", "/1/server/get?k=k&p=2", "-o", "/dev/null", "-w", "%{http_code}") as looking:
            assert looking.stdout
            assert looking.stdout.read() == ("503" if balancer == "haproxy" else "502")


@pytest.mark.parametrize("balancer", ["haproxy", "nginx"])
def test_who_polls_is_answered_by_the_push(behind: Backend, balancer: str) -> None:
    key, opened = f"poll-{balancer}", metric(behind.node, "gopush_web_polls_opened")
    with curl(behind, f"{balancer}-443", f"/1/msg/get?k={key}&m=0&wait=50") as polling:
        eventually(lambda: metric(behind.node, "gopush_web_polls_opened") > opened)
        push(behind.node, 1, key)
        assert polling.stdout
        assert [message["msg"] for message in json.loads(polling.stdout.read())["data"]["msgs"]] == ["x"]


@pytest.mark.parametrize("balancer", ["haproxy", "nginx"])
def test_a_look_up_names_the_balancer_and_the_client_gets_there(behind: Backend, balancer: str) -> None:
    """The addresses are HAProxy's, whoever leads the look-up on."""
    key = f"look-{balancer}"
    for p, port in ((1, 6968), (2, 6969)):
        with curl(behind, f"{balancer}-443", f"/1/server/get?k={key}&p={p}") as looking:
            assert looking.stdout
            named = f"localhost:{behind.ports[f'haproxy-{port}']}"
            assert json.loads(looking.stdout.read())["data"] == {"server": named}
    push(behind.node, 1, key)
    context = ssl.create_default_context(cafile=behind.authority)
    web = f"https://localhost:{behind.ports[f'{balancer}-443']}"
    subscriber = Subscriber(web, key, since=0, context=context, comet_tls=False)
    assert next(iter(subscriber)).data == "x"
    subscriber.close()
