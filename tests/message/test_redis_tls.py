"""Redis over TLS: `rediss@` in [redis] source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gopush.errors import SettingsError, UnavailableError
from gopush.message.redis import RedisStore
from gopush.message.settings import RedisSettings, StoreSettings
from gopush.message.sources import sources
from gopush.rpc.model import Read
from tests.conftest import InReactor, reactor
from tests.message.conftest import eventually
from tests.servers import free_port
from tests.servers.authority import Authority, Issued
from tests.servers.redis import RedisServer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Iterator[tuple[RedisServer, int]]:
    """A Redis that wants a certificate of the CA; its TLS port."""
    port, own = free_port(), authority.issue("redis")
    lines = (
        f"tls-port {port}",
        f"tls-cert-file {own.certificate}",
        f"tls-key-file {own.key}",
        f"tls-ca-cert-file {authority.path}",
        "tls-auth-clients yes",
    )
    with RedisServer(*lines, password="secret") as started:
        yield started, port


def works(in_reactor: InReactor, port: int, authority: Authority, own: Issued | None, scheme: str = "rediss") -> bool:
    settings = RedisSettings(
        sources=sources(f"node1:1 {scheme}@127.0.0.1:{port}#secret"),
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


def test_who_belongs_together_finds_each_other(
    server: tuple[RedisServer, int], authority: Authority, in_reactor: InReactor
) -> None:
    own = authority.issue("message")
    eventually(lambda: works(in_reactor, server[1], authority, own))


def test_strangers_on_either_side_are_turned_away(
    server: tuple[RedisServer, int], authority: Authority, in_reactor: InReactor, tmp_path: Path
) -> None:
    _, port = server
    own = authority.issue("message")
    strange = Authority(tmp_path, "strange")
    assert not works(in_reactor, port, authority, None)
    assert not works(in_reactor, port, authority, strange.issue("stranger"))
    assert not works(in_reactor, port, authority, authority.issue("late", expired=True))
    assert not works(in_reactor, port, strange, own)
    assert not works(in_reactor, port, authority, own, scheme="tcp")


def test_wrong_files_stop_the_start(tmp_path: Path) -> None:
    settings = RedisSettings(sources=sources("node1:1 rediss@localhost:6379"), tls_authorities=str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="cannot be read"):
        RedisStore(StoreSettings(), settings, reactor)
    with pytest.raises(ValueError, match="both"):
        RedisSettings(tls_key="key")
