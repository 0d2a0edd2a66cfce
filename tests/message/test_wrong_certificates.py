"""What is said where a Redis, a sentinel, or HBase's Thrift server has a certificate that is no good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from gopush.errors import UnavailableError
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

NOT_OF_CA = "the TLS handshake failed: its certificate is not of the CA that it has to be of, or is not valid now"
WRONG_NAME = "the TLS handshake failed: its certificate is not for the name or address by which it is reached"

Listen = Callable[[Issued], int]


@pytest.fixture
def listen(in_reactor: InReactor) -> Iterator[Listen]:
    """A server that shows this certificate, and says nothing: its port."""
    ports = []

    def listen(own: Issued) -> int:
        tls: Any = ServerTls(str(own.certificate), str(own.key))
        factory: Any = Factory.forProtocol(Protocol)
        silent = TlsFactory(tls, False, factory)
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


@pytest.mark.parametrize("wrong", ["expired", "another's", "another CA's"])
@pytest.mark.parametrize("kind", ["rediss", "rediss-sentinel", "hbase"])
def test_a_wrong_certificate_is_named(
    kind: str, wrong: str, listen: Listen, tmp_path: Path, in_reactor: InReactor, logged: Logged
) -> None:
    authority = Authority(tmp_path)
    hosts = ("other.example.org",) if wrong == "another's" else ()
    issuer = Authority(tmp_path, "strange") if wrong == "another CA's" else authority
    port = listen(issuer.issue("server", *hosts, expired=wrong == "expired"))
    store = open_store(kind, port, authority.path)
    words = WRONG_NAME if wrong == "another's" else NOT_OF_CA

    def said() -> bool:
        with pytest.raises(UnavailableError) as failed:
            in_reactor(store.ping)
        return words in str(failed.value)

    try:
        in_reactor(store.start)
        eventually(said)
        assert logged.lines(words)
    finally:
        in_reactor(store.stop)
