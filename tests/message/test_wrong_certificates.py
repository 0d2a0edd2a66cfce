"""What is said where a Redis, a sentinel, or HBase's Thrift server has a certificate that is no good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from gopush.errors import UnavailableError
from gopush.message.hbase import connection
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.hbase.store import HBaseStore
from gopush.message.redis.settings import RedisSettings, sources
from gopush.message.redis.store import RedisStore
from gopush.message.store import StoreSettings
from gopush.net.tls import ServerTls
from gopush.net.tls_protocol import TlsFactory
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged
from tests.message.conftest import eventually
from tests.servers.authority import Authority, Issued
from tests.servers.redis import RedisServer

NOT_OF_CA = "the TLS handshake failed: its certificate is not of the CA that it has to be of, or is not valid now"
WRONG_NAME = "the TLS handshake failed: its certificate is not for the name or address by which it is reached"
NO_TLS = {
    "rediss": "Redis node1: the TLS handshake failed: no answer within 1 s (does it speak TLS?)",
    "rediss-sentinel": ": the TLS handshake failed: no answer in time (does it speak TLS?)",
    "hbase": ": the TLS handshake failed: no answer within 1 s (does it speak TLS?)",
}

Listen = Callable[[Issued | None], int]


@pytest.fixture
def listen(in_reactor: InReactor) -> Iterator[Listen]:
    """A server that shows this certificate (None: that speaks no TLS), and says nothing: its port."""
    ports = []

    def listen(own: Issued | None) -> int:
        silent: Any = Factory.forProtocol(Protocol)
        if own is not None:
            tls: Any = ServerTls(str(own.certificate), str(own.key))
            silent = TlsFactory(tls, False, silent)
        ports.append(in_reactor(reactor.listenTCP, 0, silent, interface="127.0.0.1"))
        return int(ports[-1].getHost().port)

    yield listen
    for port in ports:
        in_reactor(port.stopListening)


def open_store(kind: str, port: int, authorities: Path) -> Any:
    settings: Any
    if kind == "hbase":
        settings = HBaseSettings((f"127.0.0.1:{port}",), tls=True, tls_authorities=str(authorities), connections=1)
        return HBaseStore(StoreSettings(), settings, reactor)
    master = "/main" if kind == "rediss-sentinel" else ""
    found = sources(f"node1:1 {kind}@127.0.0.1:{port}{master}")
    return RedisStore(StoreSettings(), RedisSettings(sources=found, tls_authorities=str(authorities)), reactor)


@pytest.fixture
def hears(in_reactor: InReactor, logged: Logged) -> Iterator[Callable[[Any, str], None]]:
    """Starts this store, and waits until it says these words to callers and in the log."""
    stores = []

    def hears(store: Any, words: str) -> None:
        def said() -> bool:
            with pytest.raises(UnavailableError) as failed:
                in_reactor(store.ping)
            return words in str(failed.value)

        stores.append(store)
        in_reactor(store.start)
        eventually(said)
        assert logged.lines(words)

    yield hears
    for store in stores:
        in_reactor(store.stop)


@pytest.mark.parametrize("wrong", ["expired", "another's", "another CA's"])
@pytest.mark.parametrize("kind", ["rediss", "rediss-sentinel", "hbase"])
def test_a_wrong_certificate_is_named(
    kind: str, wrong: str, listen: Listen, tmp_path: Path, hears: Callable[[Any, str], None]
) -> None:
    authority = Authority(tmp_path)
    hosts = ("other.example.org",) if wrong == "another's" else ()
    issuer = Authority(tmp_path, "strange") if wrong == "another CA's" else authority
    port = listen(issuer.issue("server", *hosts, expired=wrong == "expired"))
    hears(open_store(kind, port, authority.path), WRONG_NAME if wrong == "another's" else NOT_OF_CA)


@pytest.mark.parametrize("kind", ["rediss", "rediss-sentinel", "hbase"])
def test_a_server_that_waits_for_more_of_the_hello_is_named(
    kind: str, listen: Listen, tmp_path: Path, hears: Callable[[Any, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis takes a hello for a part of a command, a Thrift server for one of a frame: the handshake never ends."""
    monkeypatch.setattr(connection, "PROBE_SECONDS", 1.0)
    hears(open_store(kind, listen(None), Authority(tmp_path).path), NO_TLS[kind])


@pytest.mark.parametrize("kind", ["rediss", "rediss-sentinel", "hbase"])
def test_one_that_is_silent_behind_the_handshake_speaks_tls(
    kind: str,
    listen: Listen,
    tmp_path: Path,
    hears: Callable[[Any, str], None],
    logged: Logged,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "PROBE_SECONDS", 1.0)
    authority = Authority(tmp_path)
    hears(open_store(kind, listen(authority.issue("server")), authority.path), "no answer ")
    assert not logged.lines("handshake")


def test_a_redis_without_tls_is_named(tmp_path: Path, hears: Callable[[Any, str], None]) -> None:
    """It answers only where chance has put a line break into the hello."""
    with RedisServer() as redis:
        hears(open_store("rediss", redis.port, Authority(tmp_path).path), "Redis node1: the TLS handshake failed: ")
