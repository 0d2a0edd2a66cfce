"""Calls over TLS: a process of the cluster gets in, a stranger does not, whichever side it is on."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from gopush.config import reload as files
from gopush.config.schema import load
from gopush.daemon.listeners import Listeners
from gopush.errors import SettingsError, StartError, UnavailableError
from gopush.model import NodeInfo, Read
from gopush.net.eager import EagerReactor
from gopush.net.tls_protocol import MAX_CHAIN_HANDSHAKE_BYTES
from gopush.rpc.broker import LOGIN_SECONDS
from gopush.rpc.remote import RemoteMessage
from gopush.rpc.server import secured
from gopush.rpc.settings import RpcSettings
from gopush.stats.summary import complained
from tests.clients import endless_hello
from tests.comet.harness import Clock
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged, closed_by_peer, eventually
from tests.rpc.serving import serve_message
from tests.rpc.test_server import OneMessage
from tests.servers.authority import Authority, Issued

Serve = Callable[..., int]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(authority: Authority, issued: Issued, **more: Any) -> RpcSettings:
    return RpcSettings(
        tls_authorities=str(authority.path), tls_certificate=str(issued.certificate), tls_key=str(issued.key), **more
    )


@pytest.fixture
def serve(in_reactor: InReactor) -> Iterator[Serve]:
    """Serve calls; the port."""
    opened: list[Listeners] = []

    def start(rpc: RpcSettings) -> int:
        endpoints = ["tcp:0:interface=127.0.0.1"]
        calls = secured(serve_message(reactor, OneMessage(), rpc.secret), endpoints, rpc)
        listeners = Listeners(EagerReactor(reactor), "[base] rpc.bind", endpoints, calls)
        opened.append(listeners)
        in_reactor(listeners.startService)
        return int(listeners.ports[0].getHost().port)

    yield start
    for listeners in opened:
        in_reactor(listeners.stopService)


@pytest.fixture
def reach(in_reactor: InReactor) -> Iterator[Callable[..., bool]]:
    """Whether a call gets through."""
    remotes: list[Any] = []

    def call(port: int, rpc: RpcSettings, host: str = "127.0.0.1") -> bool:
        remote = in_reactor(RemoteMessage, reactor, NodeInfo("", 0, (f"{host}:{port}",)), rpc, 10.0)
        remotes.append(remote)
        try:
            in_reactor(remote.ping)
        except UnavailableError:
            return False
        return True

    yield call
    for remote in remotes:
        in_reactor(remote.stop)


def test_processes_of_one_cluster_reach_each_other(
    serve: Serve, reach: Callable[..., bool], authority: Authority
) -> None:
    rpc = settings(authority, authority.issue("node"))
    port = serve(rpc)
    assert reach(port, rpc)
    assert reach(port, rpc, "localhost")


def test_a_secret_and_tls_go_together(serve: Serve, reach: Callable[..., bool], authority: Authority) -> None:
    issued = authority.issue("node")
    port = serve(settings(authority, issued, secret="s"))
    assert reach(port, settings(authority, issued, secret="s"))
    assert not reach(port, settings(authority, issued, secret="t"))


def test_strangers_are_turned_away_by_the_server(
    serve: Serve, reach: Callable[..., bool], authority: Authority, tmp_path: Path
) -> None:
    port = serve(settings(authority, authority.issue("node")))
    strange = Authority(tmp_path, "strange")
    assert not reach(port, RpcSettings())
    assert not reach(port, settings(authority, strange.issue("stranger")))
    assert not reach(port, settings(authority, authority.issue("late", expired=True)))


def test_callers_turn_away_from_a_strange_server(
    serve: Serve, reach: Callable[..., bool], authority: Authority, tmp_path: Path
) -> None:
    """The name is checked, not only the CA."""
    own = settings(authority, authority.issue("caller"))
    strange = Authority(tmp_path, "strange")
    for issued in (
        authority.issue("elsewhere", "10.0.0.1", "elsewhere.example.org"),
        strange.issue("unknown"),
        authority.issue("late", expired=True),
    ):
        assert not reach(serve(settings(authority, issued)), own)


def test_what_fails_in_tls_fails_at_once(
    serve: Serve, reach: Callable[..., bool], authority: Authority, logged: Logged
) -> None:
    """Not only after the time that a call may take, so that another peer is asked."""
    port = serve(settings(authority, authority.issue("elsewhere", "elsewhere.example.org")))
    start = time.monotonic()
    assert not reach(port, settings(authority, authority.issue("caller")))
    assert time.monotonic() - start < 8
    assert logged.lines("cannot be reached: the certificate there ([rpc] tls.cert) is not for 127.0.0.1")


def test_new_certificates_are_taken_by_both_sides(
    serve: Serve, reach: Callable[..., bool], authority: Authority, tmp_path: Path
) -> None:
    rpc = settings(authority, authority.issue("node"))
    port = serve(rpc)
    assert reach(port, rpc)
    Authority(tmp_path).issue("node")  # in the same files
    files.reload()
    assert reach(port, rpc)


def test_whole_batches_travel(serve: Serve, in_reactor: InReactor, authority: Authority) -> None:
    rpc = settings(authority, authority.issue("node"))
    remote = in_reactor(RemoteMessage, reactor, NodeInfo("", 0, (f"127.0.0.1:{serve(rpc)}",)), rpc, 20.0)
    try:
        reads = [Read("k" * 200, 0, 1) for _ in range(5000)]
        assert len(in_reactor(remote.read, reads)) == len(reads)
    finally:
        in_reactor(remote.stop)


def test_tls_opens_the_door_to_the_network_and_nothing_else_does(authority: Authority) -> None:
    world = ["tcp:6970"]
    secured(None, world, RpcSettings(secret="s"))
    secured(None, world, settings(authority, authority.issue("node")))
    with pytest.raises(StartError, match=r"\[rpc\] secret"):
        secured(None, world, RpcSettings())
    with pytest.raises(StartError, match=r"write tcp:"):
        secured(None, ["ssl:6970:interface=127.0.0.1:privateKey=k"], RpcSettings())


def test_half_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all three"):
        RpcSettings(tls_authorities="ca.pem")
    path = tmp_path / "rpc.ini"
    path.write_text("[rpc]\ntls.cert = node.pem\n")
    with pytest.raises(SettingsError, match="all three"):
        load(RpcSettings, path)


def complaints() -> int:
    return complained.complaints["connection"]


def test_who_sends_too_much_of_a_handshake_is_cut_off(serve: Serve, authority: Authority, logged: Logged) -> None:
    before = complaints()
    port = serve(settings(authority, authority.issue("node")))
    with socket.create_connection(("127.0.0.1", port), 4) as stranger:
        stranger.sendall(endless_hello(MAX_CHAIN_HANDSHAKE_BYTES + 1))
        assert closed_by_peer(stranger)
    assert complaints() == before + 1
    assert logged.lines("is refused in the TLS handshake: it sent more than any has to have")


def test_strangers_at_the_port_leave_a_trace(
    serve: Serve, reach: Callable[..., bool], authority: Authority, tmp_path: Path, logged: Logged
) -> None:
    """One line for an address and reason, and each counts."""
    port = serve(settings(authority, authority.issue("node")))
    strange = Authority(tmp_path, "strange")
    for stranger, reason in (
        (settings(authority, strange.issue("stranger")), "its certificate is not of the CA that it has to be of"),
        (settings(authority, authority.issue("late", expired=True)), "its certificate is not of the CA"),
    ):
        before = complaints()
        assert not reach(port, stranger)
        eventually(lambda before=before: complaints() > before)  # type: ignore[misc]
        assert logged.lines(f"is refused in the TLS handshake: {reason}")
    before = complaints()
    anybody = ssl.create_default_context(cafile=str(authority.path))
    for _ in range(3):
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            suppress(OSError),
            anybody.wrap_socket(plain, server_hostname="localhost") as bare,
        ):
            bare.recv(1)
    eventually(lambda: complaints() >= before + 3)
    assert len(logged.lines("is refused in the TLS handshake: it gives no certificate")) == 1


def test_who_connects_and_says_nothing_is_cut(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr("gopush.rpc.server.LOGIN_SECONDS", 0.1, raising=False)
    port = serve(settings(authority, authority.issue("node")))
    before = complaints()
    with socket.create_connection(("127.0.0.1", port), 20) as silent:
        assert closed_by_peer(silent)
    assert complaints() == before + 1
    assert logged.lines("did not finish the TLS handshake")


def test_a_handshake_that_comes_while_the_process_stands_still_counts(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    transport = StringTransport()
    rpc = settings(authority, authority.issue("node"))
    factory = secured(serve_message(clock, OneMessage(), ""), ["tcp:0"], rpc)
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(transport)
    clock.advance(2 * LOGIN_SECONDS)  # it wakes, and reads only after what is due
    monkeypatch.setattr(protocol, "_handshakeDone", True)
    clock.advance(0)
    assert not transport.disconnecting


@pytest.mark.parametrize(("secret", "lacks"), [("", "finished the TLS handshake"), ("secret of the test", "logged in")])
def test_a_crowd_in_the_handshake_keeps_nobody_out(
    serve: Serve,
    reach: Callable[..., bool],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
    secret: str,
    lacks: str,
) -> None:
    """Nor does it take the files of others: the oldest goes. Each counts once, and who has got in counts no more."""
    monkeypatch.setattr("gopush.rpc.server.MOST_STRANGERS", 10)
    rpc = settings(authority, authority.issue("node"), secret=secret)
    port = serve(rpc)
    assert all(reach(port, rpc) for _ in range(2))
    before = complaints()
    strangers = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(15)]
    assert all(closed_by_peer(stranger) for stranger in strangers[:5])
    assert complaints() == before + 5
    assert len(logged.lines(f"is one of more than 10 who have not {lacks}")) == 1
    strangers[5].settimeout(0.1)
    assert not closed_by_peer(strangers[5])
    assert reach(port, rpc)
    for stranger in strangers:
        stranger.close()


def test_who_only_looks_whether_somebody_listens_is_no_stranger(
    serve: Serve, authority: Authority, logged: Logged
) -> None:
    port = serve(settings(authority, authority.issue("node")))
    before = complaints()
    for _ in range(3):
        socket.create_connection(("127.0.0.1", port), 20).close()
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while plain.recv(4096):
            pass
    eventually(lambda: complaints() > before)
    assert complaints() == before + 1
    assert len(logged.lines("is refused in the TLS handshake: it speaks no TLS")) == 1
