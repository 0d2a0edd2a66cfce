"""ZooKeeper over TLS, the real one: it and its clients want to see certificates of the same CA."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from kazoo.handlers.threading import KazooTimeoutError

from gopush.config import reload as files
from gopush.errors import SettingsError
from gopush.membership.session import ZooKeeperSession
from gopush.net.certificates import expiries
from gopush.rpc.settings import ZooKeeperSettings
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


def session_to(port: int, trusted: Authority, own: Issued | None, **more: Any) -> ZooKeeperSession:
    described: dict[str, Any] = {
        "tls": True,
        "tls_authorities": str(trusted.path),
        "tls_certificate": str(own.certificate) if own else "",
        "tls_key": str(own.key) if own else "",
    }
    settings = ZooKeeperSettings(hosts=(f"127.0.0.1:{port}",), **(described | more))
    return ZooKeeperSession(settings, lambda *_: None, lambda *_: None)


def reaches(port: int, trusted: Authority, own: Issued | None, seconds: float, **more: Any) -> bool:
    """Whether a session comes about within so many seconds."""
    session = session_to(port, trusted, own, **more)
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
    with ThreadPoolExecutor(5) as all_at_once:
        reached = [
            all_at_once.submit(reaches, port, authority, None, FAIL_SECONDS),
            all_at_once.submit(reaches, port, authority, strange.issue("stranger"), FAIL_SECONDS),
            all_at_once.submit(reaches, port, authority, authority.issue("late", expired=True), FAIL_SECONDS),
            all_at_once.submit(reaches, port, strange, own, FAIL_SECONDS),
            all_at_once.submit(reaches, port, authority, own, FAIL_SECONDS, tls=False),
        ]
    assert [each.result() for each in reached] == [False] * 5


@pytest.mark.parametrize("kind", ["expired", "unknown", "misnamed"])
def test_a_server_with_a_wrong_certificate_is_sent_nothing(kind: str, authority: Authority, tmp_path: Path) -> None:
    """No ZooKeeper: the handshake alone decides."""
    own = authority.issue("node")
    issued = {
        "expired": lambda: authority.issue("late", expired=True),
        "unknown": lambda: Authority(tmp_path, "strange").issue("stranger"),
        "misnamed": lambda: authority.issue("elsewhere", "elsewhere.example.org"),
    }[kind]()
    with Listener(authority.issue("good")) as good, Listener(issued) as bad:
        assert good.hears(authority, own)
        assert not bad.hears(authority, own)


def test_only_the_given_ca_is_trusted(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom the system trusts counts where no CA is given, and only there."""
    system = Authority(tmp_path, "system")
    monkeypatch.setenv("SSL_CERT_FILE", str(system.path))
    own = authority.issue("node")
    with Listener(authority.issue("good")) as good, Listener(system.issue("impostor")) as impostor:
        assert good.hears(authority, own)
        assert not impostor.hears(authority, own)
        assert impostor.hears(authority, own, tls_authorities="")


def test_a_server_that_shows_its_certificate_alone_is_checked_too(authority: Authority, tmp_path: Path) -> None:
    """Who wants no certificate of ours gets no password either before its own was good."""
    with Listener(authority.issue("good")) as good, Listener(Authority(tmp_path, "strange").issue("x")) as impostor:
        assert good.hears(authority, None)
        assert not impostor.hears(authority, None)


@pytest.mark.parametrize("what", ["phrase", "missing", "garbage"])
def test_files_that_make_no_client_stop_the_start(what: str, authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("node")
    key = tmp_path / "node.key"
    if what == "phrase":
        loaded = load_pem_private_key(own.key.read_bytes(), None)
        locked = BestAvailableEncryption(b"phrase")
        key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    elif what == "garbage":
        key.write_bytes(b"garbage")
    reason = "pass phrase" if what == "phrase" else ""
    with pytest.raises(SettingsError, match=rf"\[zookeeper\] tls\.ca, .*{reason}"):
        session_to(1, authority, Issued(own.certificate, key))


@pytest.mark.parametrize(
    ("ca", "certificate", "key", "why"),
    [
        ("none", "node.crt", "node.key", "{0}/none: cannot be read: No such file or directory"),
        ("ca.pem", "none", "node.key", "{0}/none: cannot be read: No such file or directory"),
        ("ca.pem", "node.crt", "none", "{0}/none: cannot be read: No such file or directory"),
        ("garbage", "node.crt", "node.key", "{0}/garbage: holds no certificate in PEM"),
        (
            "ca.pem",
            "node.crt",
            "other.key",
            "{0}/node.crt: makes no TLS client with {0}/other.key: the certificate does not belong to the private key",
        ),
    ],
)
def test_errors_name_the_file_and_the_reason(ca: str, certificate: str, key: str, why: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("node")
    authority.issue("other")
    (tmp_path / "garbage").write_text("garbage")
    files = {"tls_authorities": ca, "tls_certificate": certificate, "tls_key": key}
    with pytest.raises(SettingsError) as caught:
        session_to(1, authority, None, **{option: str(tmp_path / name) for option, name in files.items()})
    assert str(caught.value) == f"[zookeeper] tls.ca, tls.cert, tls.key: {why.format(tmp_path)}"


def test_a_key_may_stand_behind_its_certificate(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("node")
    both = tmp_path / "both.pem"
    both.write_bytes(own.certificate.read_bytes() + own.key.read_bytes())
    with Listener(authority.issue("good")) as good:
        assert good.hears(authority, None, tls_certificate=str(both))


def test_files_are_kept_as_they_were_while_they_are_wrong_and_read_anew(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("node")
    with Listener(authority.issue("good")) as good:
        session = session_to(good.port, authority, own)
        own.certificate.write_text("an accident")
        files.reload()
        assert good.hears_from(session)
        assert expiries[str(own.certificate)] > time.time()
        authority.issue("node", expired=True)
        files.reload()
        assert expiries[str(own.certificate)] < time.time()


class Listener:
    """Speaks TLS, and tells whether who connects goes on to talk; answers nothing."""

    def __init__(self, issued: Issued) -> None:
        self._outcomes: Queue[bool] = Queue()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.certificate, issued.key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)

    def hears(self, trusted: Authority, own: Issued | None, **more: Any) -> bool:
        """Have a session connect."""
        return self.hears_from(session_to(self.port, trusted, own, **more))

    def hears_from(self, session: ZooKeeperSession) -> bool:
        """Have this session connect."""
        try:
            session._client.start_async()
            return self._outcomes.get(timeout=PASS_SECONDS)
        finally:
            session.close()

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return
            accepted.settimeout(PASS_SECONDS)
            try:
                with self._context.wrap_socket(accepted, server_side=True) as connection:
                    self._outcomes.put(bool(connection.recv(100)))
            except OSError:
                self._outcomes.put(False)
