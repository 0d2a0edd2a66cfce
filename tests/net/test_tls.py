"""TLS by endpoint strings: the right holder gets in, strangers do not, new certificates are taken without a restart."""

from __future__ import annotations

import _ssl
import ctypes
import os
import pty
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.defer import succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from gopush.comet.settings import SubscriberSettings
from gopush.comet.tcp import TcpFactory
from gopush.comet.websocket import SubscriberFactory
from gopush.config import reload as files
from gopush.daemon.listeners import Listeners
from gopush.errors import SettingsError
from gopush.message.store import StoreSettings
from gopush.net.certificates import ends_soon, expiries
from gopush.net.eager import EagerReactor
from gopush.net.http.request import Request, plain
from gopush.net.http.routes import always
from gopush.net.http.site import Site
from gopush.net.limits import ConnectionLimiter, ConnectionSettings, LimiterCounters
from gopush.net.tls import ClientTls, ServerTls
from gopush.net.tls_protocol import MAX_CHAIN_HANDSHAKE_BYTES, MAX_HANDSHAKE_BYTES
from gopush.stats.resource import Health, Statistics
from gopush.web.settings import HttpSettings
from tests.clients import Client, endless_hello, eventually, opening
from tests.clients import request as subscription
from tests.comet.wire import CometServer
from tests.conftest import InReactor, reactor
from tests.servers.authority import Authority, Issued
from tests.web.conftest import World

Open = Callable[..., Any]
_numbers = count()


@pytest.fixture
def key() -> str:
    return f"tls-{next(_numbers)}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> Issued:
    return authority.issue("server")


@pytest.fixture
def listen(in_reactor: InReactor) -> Iterator[Callable[..., int]]:
    """Listen with a factory at an ssl: endpoint; the port."""
    opened: list[Listeners] = []

    def start(factory: Factory[Any], issued: Issued, more: str = "", limiter: ConnectionLimiter | None = None) -> int:
        endpoint = f"ssl:0:{issued.endpoint}:interface=127.0.0.1{more}"
        listeners = Listeners(EagerReactor(reactor, limiter), "[base] tcp.bind", [endpoint], factory)
        opened.append(listeners)
        in_reactor(listeners.startService)
        return int(listeners.ports[0].getHost().port)

    yield start
    for listeners in opened:
        in_reactor(listeners.stopService)


@pytest.fixture
def comet(reactor_thread: object) -> Iterator[CometServer]:
    server = CometServer(SubscriberSettings(msgbuf_bytes=1 << 20), StoreSettings())
    yield server
    server.stop()


def client(trusted: Path, own: Issued | None = None, most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted))
    if most is not None:
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, most
        context.set_ciphers("ALL:@SECLEVEL=0")
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


def connect(port: int, context: ssl.SSLContext, rcvbuf: int = 0) -> ssl.SSLSocket:
    raw = socket.socket()
    if rcvbuf:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    raw.settimeout(20)
    raw.connect(("127.0.0.1", port))
    return context.wrap_socket(raw, server_hostname="localhost")


def read(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def rest(connection: socket.socket) -> bytes:
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except (ssl.SSLError, ConnectionError):
        pass
    return data


def web() -> Site:
    return Site({"/": {"GET": always(plain(200))}}, reactor, 10)


class Door(NamedTuple):
    """A port for clients, HTTP or statistics: what listens there, and the beginning of a talk with it."""

    factory: Any
    question: bytes
    answer: bytes


@pytest.fixture
def web_node(in_reactor: InReactor) -> Iterator[World]:
    world = World(in_reactor, HttpSettings(), None)
    yield world
    world.close()


@pytest.fixture(params=["comet TCP", "comet WebSocket", "public web", "admin web", "statistics"])
def door(request: pytest.FixtureRequest, comet: CometServer, web_node: World, key: str) -> Door:
    if request.param == "comet TCP":
        return Door(TcpFactory(comet.comet), subscription("sub", key, "30", "", "1"), b"+h\r\n")
    if request.param == "comet WebSocket":
        question = opening(f"/sub?key={key}&heartbeat=30&ver=1")
        return Door(SubscriberFactory(comet.comet), question, b"HTTP/1.1 101 ")
    if request.param == "statistics":
        statistics = Statistics(comet.settings)
        factory, path = Site(statistics.routes(), reactor, 10), "/stat?type=memory"
    else:
        web = web_node.web
        factory, path = (web.public, "/1/time/get") if request.param == "public web" else (web.admin, "/1/admin/nodes")
    return Door(factory, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), b"HTTP/1.1 200 ")


def test_tcp_clients_speak_tls(comet: CometServer, listen: Open, authority: Authority, own: Issued, key: str) -> None:
    port = listen(TcpFactory(comet.comet), own)
    with connect(port, client(authority.path)) as device:
        assert device.version() in ("TLSv1.2", "TLSv1.3")
        device.sendall(subscription("sub", key, "30", "", "1") + b"h")
        assert read(device, 8) == b"+h\r\n+h\r\n"
        mid = comet.push(key, b'"over TLS"')
        body = b'{"msg":"over TLS","mid":%d,"gid":0}' % mid
        assert read(device, len(body) + 7) == b"$%d\r\n%b\r\n" % (len(body), body)


def test_a_refusal_arrives_whole_and_the_connection_ends(
    comet: CometServer, listen: Open, authority: Authority, own: Issued
) -> None:
    port = listen(TcpFactory(comet.comet), own)
    with connect(port, client(authority.path)) as device:
        device.sendall(subscription("no", "such", "command"))
        assert rest(device) == b"-p\r\n"


def test_websocket_clients_speak_tls(
    comet: CometServer, listen: Open, authority: Authority, own: Issued, key: str
) -> None:
    port = listen(SubscriberFactory(comet.comet), own)
    with connect(port, client(authority.path)) as device:
        device.sendall(opening(f"/sub?key={key}&heartbeat=30&ver=1"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += device.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        assert read(device, 6) == b"\x81\x04+h\r\n"


def test_http_speaks_tls(listen: Open, authority: Authority, own: Issued, in_reactor: InReactor) -> None:
    port = listen(in_reactor(web), own)
    with connect(port, client(authority.path)) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert rest(caller).startswith(b"HTTP/1.1 200")


def test_clients_see_through_a_wrong_or_expired_certificate(
    door: Door, listen: Open, authority: Authority, tmp_path: Path
) -> None:
    strange = Authority(tmp_path, "strange")
    for issued, words in (
        (authority.issue("expired", expired=True), "expired"),
        (authority.issue("other", "other.example.org"), "mismatch"),
        (strange.issue("unknown"), "unable to get local issuer|self.signed"),
    ):
        with pytest.raises(ssl.SSLCertVerificationError, match=words):
            connect(listen(door.factory, issued), client(authority.path))


def test_a_listener_may_want_certificates_of_its_clients(
    door: Door, listen: Open, authority: Authority, own: Issued, tmp_path: Path
) -> None:
    port = listen(door.factory, own, f":clientCA={authority.path}")
    strange = Authority(tmp_path, "strange")

    def answer(context: ssl.SSLContext) -> bytes:
        try:
            with connect(port, context) as caller:
                caller.sendall(door.question)
                return read(caller, len(door.answer))
        except (ssl.SSLError, ConnectionError):
            return b""

    assert answer(client(authority.path, authority.issue("friend"))) == door.answer
    assert answer(client(authority.path)) == b""
    assert answer(client(authority.path, strange.issue("stranger"))) == b""
    assert answer(client(authority.path, authority.issue("late", expired=True))) == b""


def test_tls_1_1_is_refused(listen: Open, authority: Authority, own: Issued, in_reactor: InReactor) -> None:
    port = listen(in_reactor(web), own)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(port, client(authority.path, most=version))
    connect(port, client(authority.path, most=ssl.TLSVersion.TLSv1_2)).close()


def test_who_speaks_no_tls_is_gone_within_seconds(
    comet: CometServer, listen: Open, own: Issued, in_reactor: InReactor
) -> None:
    port = listen(TcpFactory(comet.comet), own)
    silent = socket.create_connection(("127.0.0.1", port), timeout=20)
    noisy = socket.create_connection(("127.0.0.1", port), timeout=20)
    noisy.sendall(subscription("sub", "key", "30"))
    rest(noisy)
    eventually(lambda: comet.comet.counters.connections_added == 2)
    comet.leap(6)  # the first request must arrive within 5 seconds
    assert rest(silent) == b""
    eventually(lambda: comet.comet.counters.connections_removed == 2)


def test_new_certificates_are_taken_and_connections_stay(
    comet: CometServer, listen: Open, authority: Authority, own: Issued, key: str, tmp_path: Path
) -> None:
    port = listen(TcpFactory(comet.comet), own)
    with connect(port, client(authority.path)) as old:
        old.sendall(subscription("sub", key, "30", "", "1"))
        assert read(old, 4) == b"+h\r\n"
        renewed = Authority(tmp_path, "renewed")
        renewed.issue("server")
        files.reload()
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(port, client(authority.path))
        with connect(port, client(renewed.path)) as new:
            new.sendall(subscription("sub", key, "30", "", "1"))
            assert read(new, 4) == b"+h\r\n"
        own.certificate.write_text("an accident")  # the one before stays in use
        files.reload()
        connect(port, client(renewed.path)).close()
        old.sendall(b"h")
        assert read(old, 4) == b"+h\r\n"


def test_a_subscriber_who_does_not_read_is_closed_and_delays_nobody(
    comet: CometServer, listen: Open, authority: Authority, own: Issued, key: str
) -> None:
    """The limits of msgbuf hold over TLS: what waits is known at once."""
    port = listen(TcpFactory(comet.comet), own)
    slow = connect(port, client(authority.path), rcvbuf=4096)
    slow.sendall(subscription("sub", key, "30", "", "1"))
    assert read(slow, 4) == b"+h\r\n"
    with connect(port, client(authority.path)) as quick:
        quick.sendall(subscription("sub", key, "30", "", "1"))
        assert read(quick, 4) == b"+h\r\n"
        text = b'"%b"' % (b"x" * 100_000)
        for _ in range(40):
            mid = comet.push(key, text)
            body = b'{"msg":%b,"mid":%d,"gid":0}' % (text, mid)
            assert read(quick, len(body) + 11) == b"$%d\r\n%b\r\n" % (len(body), body)
        eventually(lambda: comet.subscribers(key) == 1)
        assert comet.comet.counters.slow_closed == 1
        end = time.monotonic() + 20
        data = rest(slow)
        assert len(data) < 3_000_000
        assert time.monotonic() < end


def test_a_long_backlog_is_paged_at_the_speed_of_the_reader(
    comet: CometServer, listen: Open, authority: Authority, own: Issued, key: str
) -> None:
    """drained() waits for what is below TLS."""
    port = listen(TcpFactory(comet.comet), own)
    text = b'"%b"' % (b"x" * 500_000)
    mids = [comet.push(key, text) for _ in range(12)]
    with connect(port, client(authority.path), rcvbuf=4096) as device:
        device.sendall(subscription("sub", key, "30", "", "1", "0"))
        expected = b"+h\r\n"
        for mid in mids:
            body = b'{"msg":%b,"mid":%d,"gid":0}' % (text, mid)
            expected += b"$%d\r\n%b\r\n" % (len(body), body)
        assert read(device, len(expected)) == expected


def new_keys(connection: socket.socket, times: int) -> int:
    """Shake hands in TLS 1.3 and ask for new keys so often, as Python's ssl cannot; how often that went out."""
    openssl = ctypes.CDLL(_ssl.__file__)
    made: Any = None
    for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        make = getattr(openssl, name)
        make.restype = ctypes.c_void_p
        made = ctypes.c_void_p(make() if made is None else make(made))
    session = made
    assert openssl.SSL_set_fd(session, connection.fileno()) == 1
    assert openssl.SSL_connect(session) == 1
    sent = 0
    while sent < times and openssl.SSL_key_update(session, 1) == 1 and openssl.SSL_do_handshake(session) == 1:
        sent += 1
    return sent


def test_who_asks_for_new_keys_and_never_reads_is_cut_off(
    comet: CometServer, listen: Open, own: Issued, key: str
) -> None:
    """OpenSSL answers by itself; nothing else counts what waits then."""
    port = listen(TcpFactory(comet.comet), own)
    with socket.socket() as attacker:
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            attacker.setsockopt(socket.SOL_SOCKET, buffer, 4096)
        attacker.connect(("127.0.0.1", port))
        assert new_keys(attacker, 200_000) < 200_000


def test_who_sends_too_much_of_a_handshake_is_cut_off(
    comet: CometServer, listen: Open, authority: Authority, own: Issued
) -> None:
    """OpenSSL keeps what has come of a message until all of it has, and 128 KiB are announced."""
    limiter = ConnectionLimiter(reactor, ConnectionSettings(), 1000, LimiterCounters())
    for more, room in (("", MAX_HANDSHAKE_BYTES), (f":clientCA={authority.path}", MAX_CHAIN_HANDSHAKE_BYTES)):
        port = listen(TcpFactory(comet.comet), own, more, limiter)
        before = limiter.counters.refused_tls
        with Client(port) as within, Client(port) as beyond:
            within.send(endless_hello(room))
            beyond.send(endless_hello(room + 1))
            assert rest(beyond.socket) == b""
            assert limiter.counters.refused_tls == before + 1
            within.send(b"\0")
            assert rest(within.socket) == b""
            assert limiter.counters.refused_tls == before + 2


def test_who_speaks_no_tls_has_no_handshake_that_is_too_long(comet: CometServer, listen: Open, own: Issued) -> None:
    limiter = ConnectionLimiter(reactor, ConnectionSettings(), 1000, LimiterCounters())
    with Client(listen(TcpFactory(comet.comet), own, "", limiter)) as stranger:
        stranger.send(b"POST / HTTP/1.1\r\n\r\n" + b"x" * 2 * MAX_HANDSHAKE_BYTES)
        rest(stranger.socket)
    assert limiter.counters.refused_tls == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_may_show_a_long_chain(
    door: Door, listen: Open, authority: Authority, own: Issued, version: ssl.TLSVersion
) -> None:
    port = listen(door.factory, own, f":clientCA={authority.path}")
    friend = authority.issue("friend")
    ca = authority.path.read_bytes()
    more = 2 * MAX_HANDSHAKE_BYTES // len(ssl.PEM_cert_to_DER_cert(ca.decode()))
    friend.certificate.write_bytes(friend.certificate.read_bytes() + ca * more)
    context = client(authority.path, friend)
    context.maximum_version = version
    with connect(port, context) as caller:
        caller.sendall(door.question)
        assert read(caller, len(door.answer)) == door.answer


@pytest.mark.parametrize(
    "wrong", ["ssl:0", "ssl:0:privateKey=/none", "ssl:x:privateKey=KEY", "ssl:0:privateKey=KEY:sslmethod=SSLv3_METHOD"]
)
def test_a_wrong_endpoint_stops_the_start_in_one_line(wrong: str, own: Issued) -> None:
    with pytest.raises(SettingsError, match=r"\[base\] tcp\.bind: ssl:.*gopush cannot listen there") as refused:
        Listeners(reactor, "[base] tcp.bind", [wrong.replace("KEY", str(own.key))], Factory())
    assert "\n" not in str(refused.value)


def _with_a_pass_phrase(issued: Issued) -> None:
    """Encrypt a key in its file."""
    key = load_pem_private_key(issued.key.read_bytes(), None)
    issued.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


TLS_OF = """
import sys
from gopush.errors import SettingsError
from gopush.net.tls import ClientTls, ServerTls
try:
    ServerTls(*sys.argv[2:4]) if sys.argv[1] == "server" else ClientTls("", *sys.argv[2:4])
except SettingsError as wrong:
    print(wrong)
"""


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked(own: Issued, side: str) -> None:
    """OpenSSL asked on the terminal: of a process that runs, too, and it stood still meanwhile."""
    _with_a_pass_phrase(own)
    command = [sys.executable, "-c", TLS_OF, side, str(own.certificate), str(own.key)]
    primary, terminal = pty.openpty()
    try:
        ended = subprocess.run(
            command,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            timeout=30,
            start_new_session=True,
        )
    finally:
        os.close(primary)
        os.close(terminal)
    assert ended.stdout == f"{own.key}: has a pass phrase, which gopush cannot ask for: remove it\n"


def test_a_new_key_with_a_pass_phrase_leaves_the_old_pair(own: Issued) -> None:
    tls = ServerTls(str(own.certificate), str(own.key))
    before = tls._file.value
    _with_a_pass_phrase(own)
    with capturedLogs() as logged:
        tls._file.reload()
    assert tls._file.value is before
    assert "pass phrase" in str(logged[-1]["wrong"])


def test_files_that_make_no_pair_are_refused_in_words(tmp_path: Path, authority: Authority, own: Issued) -> None:
    other = authority.issue("other")
    both = tmp_path / "both.pem"
    both.write_bytes(own.certificate.read_bytes() + other.key.read_bytes())
    reason = "the certificate does not belong to the private key"
    for make in (lambda *pair: ServerTls(*pair), lambda *pair: ClientTls("", *pair)):
        with pytest.raises(SettingsError, match=f"^{own.certificate}: makes no TLS [a-z]+ with {other.key}: {reason}$"):
            make(str(own.certificate), str(other.key))
        with pytest.raises(SettingsError, match=f"^{both}: makes no TLS [a-z]+: {reason}$"):
            make(str(both), str(both))
        with pytest.raises(SettingsError, match=f": {own.key} holds no certificate in PEM$"):
            make(str(own.key), str(own.key))
        with pytest.raises(SettingsError, match=f": {own.certificate} holds no private key in PEM$"):
            make(str(own.certificate), str(own.certificate))


def test_it_is_known_when_the_certificates_in_use_end(tmp_path: Path, authority: Authority, own: Issued) -> None:
    """Those in use: a file that is wrong changes nothing."""
    server = ServerTls(str(own.certificate), str(own.key))
    client = ClientTls("", str(own.certificate), str(own.key))
    soon = expiries[str(own.certificate)]
    assert 0 < soon - time.time() <= 86400 + 60
    authority.issue("server", expired=True)
    files.reload()
    assert expiries[str(own.certificate)] < time.time()
    own.certificate.write_text("an accident")
    files.reload()
    assert expiries[str(own.certificate)] < time.time()
    del server, client


def test_a_certificate_ends_soon_when_little_is_left_of_a_week_and_of_its_time(
    authority: Authority, own: Issued
) -> None:
    """It lives for three days here: a tenth is what it may have left."""
    server = ServerTls(str(own.certificate), str(own.key))
    ends = expiries[str(own.certificate)]
    assert ends_soon(own.certificate, ends - 7 * 3600) == ends_soon(own.certificate, ends + 1) == ends
    assert ends_soon(own.certificate, ends - 8 * 3600) is ends_soon(own.certificate, ends - 8 * 86400) is None
    assert ends_soon(authority.path, ends + 1) is None  # no certificate of ours
    del server


def test_certificates_serve_and_are_shown_where_the_name_of_their_directory_is_no_text(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"\xff")
    directory.mkdir()
    authority = Authority(directory)
    issued = authority.issue("server")
    server = ServerTls(str(issued.certificate), str(issued.key), str(authority.path))
    statistics = Statistics(HttpSettings())
    statistics.port(Clock(), (), Health(Clock(), lambda: succeed(None)))
    assert f'file="{tmp_path}/?/server.crt"'.encode() in statistics.metrics.response(Request(b"GET", b"/metrics")).body
    del server


def go_on(site: Site, seconds: float, in_reactor: InReactor) -> None:
    """Let time pass at a site with a clock of its own."""
    clock: Any = site.clock
    for _ in range(int(seconds * 2)):
        in_reactor(clock.advance, 0.5)


@pytest.fixture
def timed_site(in_reactor: InReactor) -> Site:
    clock = Clock()
    return in_reactor(lambda: Site({"/": {"GET": always(plain(200))}}, clock, 10, clock.seconds))  # type: ignore[no-any-return]


SAYS = [
    b"",
    b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"garbage\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n",
]


@pytest.mark.parametrize("says", SAYS, ids=["idle", "its last request", "malformed", "refused"])
def test_an_http_client_that_never_says_goodbye_is_closed_in_time(
    timed_site: Site, listen: Open, authority: Authority, own: Issued, in_reactor: InReactor, says: bytes
) -> None:
    """protocol.md, section 4: "An idle connection is closed after 10 s"; those that are over have no longer."""
    port = listen(timed_site, own)
    with connect(port, client(authority.path)) as silent:
        silent.sendall(says)
        assert not says or silent.recv(9) == b"HTTP/1.1 "
        eventually(lambda: len(timed_site.channels) == 1)
        go_on(timed_site, 6 if says else 13.5, in_reactor)
        eventually(lambda: not timed_site.channels)


def test_a_site_stops_though_a_client_never_says_goodbye(
    timed_site: Site, listen: Open, authority: Authority, own: Issued, in_reactor: InReactor
) -> None:
    """One such connection held up SIGTERM for ever."""
    port = listen(timed_site, own)
    with connect(port, client(authority.path)) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert silent.recv(9) == b"HTTP/1.1 "
        stopped: list[object] = []
        in_reactor(lambda: timed_site.stop().addCallback(stopped.append) and None)
        go_on(timed_site, 3.5, in_reactor)
        eventually(lambda: len(stopped) == 1)


@pytest.mark.parametrize("question", [subscription("no", "such", "command"), b"GET / HTTP/1.1\r\n\r\n"])
def test_a_subscriber_that_never_says_goodbye_is_closed_in_time(
    comet: CometServer, listen: Open, authority: Authority, own: Issued, in_reactor: InReactor, question: bytes
) -> None:
    factory: Any = SubscriberFactory if question.startswith(b"GET") else TcpFactory
    port = listen(factory(comet.comet), own)
    with connect(port, client(authority.path)) as silent:
        silent.sendall(question)
        assert silent.recv(1)
        in_reactor(comet.leap, 6)  # behind the turn in which the answer went out
        eventually(lambda: comet.comet.counters.connections_removed == 1)


BAD = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("which", ["certificate", "chain", "clients", "authorities", "own"])
def test_a_certificate_that_cannot_be_read_is_named_in_one_line(tmp_path: Path, own: Issued, which: str) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text(BAD)
    pair = str(own.certificate), str(own.key)
    makes: dict[str, Callable[[], object]] = {
        "certificate": lambda: ServerTls(str(bad), pair[1]),
        "chain": lambda: ServerTls(*pair, chain=str(bad)),
        "clients": lambda: ServerTls(*pair, clients=str(bad)),
        "authorities": lambda: ClientTls(str(bad)),
        "own": lambda: ClientTls("", str(bad), pair[1]),
    }
    with pytest.raises(SettingsError, match=f"^{bad}: [^\n]*$"):
        makes[which]()


@pytest.mark.parametrize("which", ["certificate", "key", "chain", "clients"])
def test_a_file_that_is_not_there_is_named_as_such(tmp_path: Path, own: Issued, which: str) -> None:
    paths = {"certificate": str(own.certificate), "key": str(own.key)} | {which: str(tmp_path / "none")}
    with pytest.raises(SettingsError, match=f"{tmp_path}/none: cannot be read: No such file or directory$"):
        ServerTls(**paths)


def test_a_certificate_without_a_date_is_no_certificate(own: Issued, tmp_path: Path) -> None:
    """OpenSSL reads it, and pyOpenSSL cannot say when it ends."""
    der = ssl.PEM_cert_to_DER_cert(own.certificate.read_text())
    own.certificate.write_text(ssl.DER_cert_to_PEM_cert(re.sub(rb"\d{12}Z", b"99999999999x9", der)))
    for make in (lambda *pair: ServerTls(*pair), lambda *pair: ClientTls("", *pair)):
        with pytest.raises(SettingsError, match="makes no TLS"):
            make(str(own.certificate), str(own.key))


def test_a_bad_certificate_in_a_chain_leaves_what_was_read_and_the_port(
    listen: Open,
    authority: Authority,
    own: Issued,
    in_reactor: InReactor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next connection took the port along, for ever."""
    chain = tmp_path / "chain.pem"
    chain.write_bytes(authority.path.read_bytes())
    port = listen(in_reactor(web), own, f":extraCertChain={chain}")
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.0)
    chain.write_text(BAD)
    with capturedLogs() as logged:
        for _ in range(3):
            with connect(port, client(authority.path)) as caller:
                caller.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
                assert rest(caller).startswith(b"HTTP/1.1 200")
    said = [str(event["wrong"]) for event in logged if "wrong" in event]
    assert said == [f"{chain}: holds no certificate that OpenSSL can read"]
