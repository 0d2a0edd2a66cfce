"""ZooKeeper over TLS, the real one: it and its clients want to see certificates of the same CA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.handlers.threading import KazooTimeoutError

from gopush.rpc.settings import ZooKeeperSettings
from gopush.rpc.zksession import Session
from tests.servers import free_port
from tests.servers.authority import Authority, Issued
from tests.servers.zookeeper import ZooKeeperServer

PASS_SECONDS = 20
FAIL_SECONDS = 3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zookeeper-tls")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def port(directory: Path, authority: Authority) -> Iterator[int]:
    """Where a ZooKeeper listens for TLS."""
    own = authority.issue("zookeeper")
    pair = directory / "pair.pem"
    pair.write_bytes(own.key.read_bytes() + own.certificate.read_bytes())
    found = free_port()
    more = {
        "secureClientPort": str(found),
        "secureClientPortAddress": "127.0.0.1",
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.keyStore.location": str(pair),
        "ssl.keyStore.type": "PEM",
        "ssl.trustStore.location": str(authority.path),
        "ssl.trustStore.type": "PEM",
    }
    with ZooKeeperServer(more):
        yield found


def reaches(port: int, trusted: Authority, own: Issued | None, seconds: float, **more: Any) -> bool:
    """Whether a session comes about within so many seconds."""
    settings = ZooKeeperSettings(
        hosts=(f"127.0.0.1:{port}",),
        tls_authorities=str(trusted.path),
        tls_certificate=str(own.certificate) if own else "",
        tls_key=str(own.key) if own else "",
        **({"tls": True} | more),
    )
    session = Session(settings, lambda *_: None, lambda *_: None)
    try:
        session._client.start(timeout=seconds)
    except KazooTimeoutError:
        return False
    finally:
        session.close()
    return True


def test_who_belongs_to_the_cluster_gets_a_session(port: int, authority: Authority) -> None:
    assert reaches(port, authority, authority.issue("node"), PASS_SECONDS)


def test_strangers_on_either_side_are_turned_away(port: int, authority: Authority, tmp_path: Path) -> None:
    strange = Authority(tmp_path, "strange")
    own = authority.issue("node")
    assert not reaches(port, authority, None, FAIL_SECONDS)
    assert not reaches(port, authority, strange.issue("stranger"), FAIL_SECONDS)
    assert not reaches(port, authority, authority.issue("late", expired=True), FAIL_SECONDS)
    assert not reaches(port, strange, own, FAIL_SECONDS)
    assert not reaches(port, authority, own, FAIL_SECONDS, tls=False)
