"""Redis over TLS: `rediss@` and `rediss-sentinel@` in [redis] source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gopush.errors import SettingsError, UnavailableError
from gopush.message.redis.settings import RedisSettings, sources
from gopush.message.redis.store import RedisStore
from gopush.message.store import StoreSettings
from gopush.model import Read
from tests.conftest import InReactor, reactor
from tests.message.conftest import eventually
from tests.servers import free_port
from tests.servers.authority import Authority, Issued
from tests.servers.redis import RedisServer
from tests.servers.sentinel import MASTER, Sentinel


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def lines(authority: Authority, port: int) -> tuple[str, ...]:
    """A server's configuration: TLS at this port, for those with a certificate of the CA."""
    own = authority.issue("redis")
    return (
        f"tls-port {port}",
        f"tls-cert-file {own.certificate}",
        f"tls-key-file {own.key}",
        f"tls-ca-cert-file {authority.path}",
        "tls-auth-clients yes",
        "tls-replication yes",
    )


@pytest.fixture
def port(authority: Authority) -> Iterator[int]:
    """The TLS port of a Redis."""
    port = free_port()
    with RedisServer(*lines(authority, port), password="secret"):
        yield port


@pytest.fixture(params=["rediss", "rediss-sentinel"])
def where(request: pytest.FixtureRequest, authority: Authority, port: int) -> Iterator[str]:
    """How a source names that Redis, over TLS all the way."""
    if request.param == "rediss":
        yield f"rediss@127.0.0.1:{port}#secret"
        return
    sentinel_port = free_port()
    watch = (f"sentinel monitor {MASTER} 127.0.0.1 {port} 1", f"sentinel auth-pass {MASTER} secret")
    with Sentinel(*lines(authority, sentinel_port), *watch):
        yield f"rediss-sentinel@127.0.0.1:{sentinel_port}/{MASTER}#secret"


def works(in_reactor: InReactor, where: str, authority: Authority, own: Issued | None) -> bool:
    settings = RedisSettings(
        sources=sources(f"node1:1 {where}"),
        tls_authorities=str(authority.path),
        tls_certificate=str(own.certificate) if own else "",
        tls_key=str(own.key) if own else "",
    )
    store: Any = RedisStore(StoreSettings(), settings, reactor)
    try:
        in_reactor(store.start)
        try:
            in_reactor(store.read, [Read("key", 0, 1)])
        except UnavailableError:
            return False
        return True
    finally:
        in_reactor(store.stop)


def test_only_those_who_belong_together_find_each_other(
    where: str, authority: Authority, in_reactor: InReactor, tmp_path: Path
) -> None:
    own = authority.issue("message")
    strange = Authority(tmp_path, "strange")
    eventually(lambda: works(in_reactor, where, authority, own))
    assert not works(in_reactor, where, authority, None)
    assert not works(in_reactor, where, authority, strange.issue("stranger"))
    assert not works(in_reactor, where, authority, authority.issue("late", expired=True))
    assert not works(in_reactor, where, strange, own)
    assert not works(in_reactor, where.replace("rediss-", "").replace("rediss", "tcp"), authority, own)
    assert works(in_reactor, where, authority, own), "one attempt is enough for who belongs here"


@pytest.mark.parametrize("expired", [True, False])
def test_a_server_with_a_wrong_certificate_is_left(expired: bool, authority: Authority, in_reactor: InReactor) -> None:
    """Expired, or another's."""
    port, own = free_port(), authority.issue("message")
    config = lines(authority, port)
    authority.issue("redis", *(() if expired else ("other.example.org",)), expired=expired)
    with RedisServer(*config, password="secret"):
        assert not works(in_reactor, f"rediss@127.0.0.1:{port}#secret", authority, own)


def test_wrong_files_stop_the_start(tmp_path: Path) -> None:
    settings = RedisSettings(sources=sources("node1:1 rediss@localhost:6379"), tls_authorities=str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"^\[redis\] tls\.ca: .*/none: cannot be read"):
        RedisStore(StoreSettings(), settings, reactor)
    with pytest.raises(ValueError, match="both"):
        RedisSettings(tls_key="key")
