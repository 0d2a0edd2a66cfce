"""Calls between processes over real connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack
import pytest
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.spread import pb

from gopush.errors import PeerRefusedError, UnavailableError
from gopush.feed import FeedItem
from gopush.membership.view import StaticCoordination, View
from gopush.model import Append, Appended, Forward, Head, Message, NodeInfo, Page, Push, Pushed, Read, Token, TokenState
from gopush.reports import BusyKey, Presence, SlowConsumer
from gopush.routing.comets import Comets
from gopush.rpc.broker import LOGIN_SECONDS, Calls
from gopush.rpc.codec import COMET_CALLS
from gopush.rpc.remote import RemoteComet, RemoteFeedComet, RemoteMessage
from gopush.rpc.server import ServerFactory
from gopush.rpc.services import CometService, MessageService
from gopush.rpc.settings import RpcSettings
from gopush.stats.summary import complained
from tests.comet.harness import Clock
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged, closed_by_peer, eventually
from tests.rpc.serving import serve_comet, serve_message
from tests.servers import free_port

PUSH = Push("Ключ", b'{"a":1}', 600, "id", 60, 1.5)


class OneMessage:
    """A message node that remembers what it was asked; `answer` replaces the answer to append."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Callable[[], Any] | None = None

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        self.asked.append(list(appends))
        if self.answer is not None:
            made: Deferred[list[Appended]] = self.answer()
            return made
        return succeed([Appended(0, 16 * n, 0, False) for n in range(len(appends))])

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        self.asked.append(list(reads))
        return succeed([Page([Message(32, b"x" * read.limit)], Head(32, 16), False) for read in reads])

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        return succeed([Head(len(key), 0) for key in keys])

    def delete(self, key: str) -> Deferred[None]:
        self.asked.append(key)
        return succeed(None)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        self.asked.append((key, token))
        return succeed(None)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        return succeed(digest == b"known")

    def tokens(self, key: str) -> Deferred[list[Token]]:
        return succeed([Token(b"digest", 99)])

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        return succeed(TokenState(True, False))

    def ping(self) -> Deferred[None]:
        return succeed(None)


class OneComet:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def push(self, pushes: Sequence[Push]) -> Deferred[list[Pushed]]:
        self.heard.append(list(pushes))
        return succeed([Pushed(0, 16) for _ in pushes])

    def forward(self, forwards: Sequence[Forward]) -> Deferred[None]:
        self.heard.append(list(forwards))
        return succeed(None)

    def close(self, keys: Sequence[str]) -> Deferred[list[int]]:
        return succeed([len(key) for key in keys])

    def subscribers(self, keys: Sequence[str]) -> Deferred[list[int]]:
        return succeed([len(key) for key in keys])

    def presence(self, keys: Sequence[str]) -> Deferred[list[Presence]]:
        return succeed([Presence(2, len(key), (("tcp", 1), ("websocket", 1))) for key in keys])

    def slowest(self, most: int) -> Deferred[list[SlowConsumer]]:
        return succeed([SlowConsumer("k", "tcp", "client:1", most, 2, 0.5)])

    def keys(self, prefix: str, most: int) -> Deferred[list[BusyKey]]:
        return succeed([BusyKey(prefix + "k", most, 0.5)])

    def ping(self) -> Deferred[None]:
        return succeed(None)


class HeldFactory(Factory):
    """Keeps the connections of a factory shut: accepts, but neither reads nor answers until it is opened."""

    noisy = False

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.held: list[Protocol] = []

    def buildProtocol(self, addr: Any) -> Any:
        held = Protocol()
        held.connectionMade = lambda: held.transport.pauseProducing()  # type: ignore[method-assign, union-attr]
        self.held.append(held)
        return held

    def open(self) -> None:
        for held in self.held:
            transport: Any = held.transport
            transport.protocol = self.inner.buildProtocol(transport.getPeer())
            transport.protocol.makeConnection(transport)
            transport.resumeProducing()


class Network:
    """Listeners and callers in the reactor's thread, closed after the test."""

    def __init__(self, in_reactor: InReactor) -> None:
        self.run = in_reactor
        self.ports: list[Any] = []
        self.callers: list[Any] = []

    def listen(self, factory: Any, port: int = 0) -> int:
        listening = self.run(reactor.listenTCP, port, factory, interface="127.0.0.1")
        self.ports.append(listening)
        number: int = listening.getHost().port
        return number

    def message_node(self, service: MessageService, secret: str = "", port: int = 0) -> int:
        return self.listen(serve_message(reactor, service, secret), port)

    def message(self, *ports: int, secret: str = "", timeout: float = 20) -> RemoteMessage:
        info = NodeInfo("m", 0, tuple(f"127.0.0.1:{port}" for port in ports))
        remote: RemoteMessage = self._caller(RemoteMessage, info, secret, timeout)
        return remote

    def comet(self, port: int, timeout: float = 20) -> RemoteComet:
        remote: RemoteComet = self._caller(RemoteComet, NodeInfo("c", 0, (f"localhost:{port}",)), "", timeout)
        return remote

    def _caller(self, kind: Any, info: NodeInfo, secret: str, timeout: float) -> Any:
        caller = self.run(kind, reactor, info, RpcSettings(secret=secret, retry=0.2), timeout)
        self.callers.append(caller)
        return caller

    def stop_listening(self) -> None:
        for port in self.ports:
            self.run(port.stopListening)
        self.ports = []
        self.run(cut_connections)

    def close(self) -> None:
        for caller in self.callers:
            self.run(caller.stop)
        self.stop_listening()


def cut_connections() -> None:
    """Break all connections that were accepted in this process."""
    for reader in reactor.getReaders():
        if hasattr(reader, "server") and hasattr(reader, "abortConnection"):
            reader.abortConnection()


@pytest.fixture
def network(in_reactor: InReactor) -> Iterator[Network]:
    network = Network(in_reactor)
    yield network
    network.close()


def test_every_call_of_a_message_node_arrives(network: Network, in_reactor: InReactor) -> None:
    service = OneMessage()
    remote: MessageService = network.message(network.message_node(service))
    appends = [Append(PUSH, 0), Append(PUSH._replace(body=b""), 160)]
    assert in_reactor(remote.append, appends) == [Appended(0, 0, 0, False), Appended(0, 16, 0, False)]
    assert in_reactor(remote.read, [Read("k", -1, 3)]) == [Page([Message(32, b"xxx")], Head(32, 16), False)]
    assert in_reactor(remote.heads, ["a", "ab"]) == [Head(1, 0), Head(2, 0)]
    assert in_reactor(remote.delete, "k") is None
    assert in_reactor(remote.create_token, "k", Token(b"\x00\xff", 5)) is None
    assert in_reactor(remote.revoke_token, "k", b"known") is True
    assert in_reactor(remote.tokens, "k") == [Token(b"digest", 99)]
    assert in_reactor(remote.check_token, "k", b"x") == TokenState(True, False)
    assert in_reactor(remote.ping) is None
    assert service.asked == [appends, [Read("k", -1, 3)], "k", ("k", Token(b"\x00\xff", 5))]


def test_every_call_of_a_comet_arrives(network: Network, in_reactor: InReactor) -> None:
    service = OneComet()
    remote: CometService = network.comet(network.listen(serve_comet(reactor, service, "")))
    forwards = [Forward("k", 32, 16, None, 1), Forward("k", 48, 32, b"{}", 0)]
    assert in_reactor(remote.push, [PUSH, PUSH]) == [Pushed(0, 16)] * 2
    assert in_reactor(remote.forward, forwards) is None
    assert in_reactor(remote.close, ["a", "bc"]) == [1, 2]
    assert in_reactor(remote.subscribers, ["a", "bc"]) == [1, 2]
    two = [Presence(2, 1, (("tcp", 1), ("websocket", 1))), Presence(2, 2, (("tcp", 1), ("websocket", 1)))]
    assert in_reactor(remote.presence, ["a", "bc"]) == two
    assert in_reactor(remote.slowest, 20) == [SlowConsumer("k", "tcp", "client:1", 20, 2, 0.5)]
    assert in_reactor(remote.keys, "shop-", 20) == [BusyKey("shop-k", 20, 0.5)]
    assert in_reactor(remote.ping) is None
    assert service.heard == [[PUSH, PUSH], forwards]


def test_a_comet_of_an_older_release_tells_what_it_can_of_presence_and_keys(
    network: Network, in_reactor: InReactor
) -> None:
    """It knows no such call, refuses it with a line, and is asked for what it does know; the connection stays."""
    older = {name: call for name, call in COMET_CALLS.items() if name not in ("presence", "keys")}
    port = network.listen(ServerFactory(reactor, Calls(OneComet(), older), ()))
    coordination = StaticCoordination(View([NodeInfo("node1", 0, (f"127.0.0.1:{port}",))]))
    comets = in_reactor(
        Comets, reactor, coordination, lambda info: RemoteComet(reactor, info, RpcSettings()), RpcSettings()
    )
    try:
        for _ in range(2):
            assert in_reactor(comets.presence, ["a", "bc"]) == {"a": Presence(1), "bc": Presence(2)}
            assert in_reactor(comets.keys, "", 50) == {f"127.0.0.1:{port}": None}
    finally:
        in_reactor(comets.stop)


@pytest.mark.parametrize("secret", ["", "s3cret \u00e9"])
def test_bodies_of_megabytes_pass_both_ways(network: Network, in_reactor: InReactor, secret: str) -> None:
    service = OneMessage()
    remote = network.message(network.message_node(service, secret), secret=secret)
    append = Append(PUSH._replace(body=b"y" * (4 * 2**20)), 0)
    assert in_reactor(remote.append, [append] * 3) == [Appended(0, 16 * n, 0, False) for n in range(3)]
    assert service.asked == [[append] * 3]
    (page,) = in_reactor(remote.read, [Read("k", 0, 4 * 2**20)])
    assert page.messages[0].body == b"x" * (4 * 2**20)


def test_calls_run_side_by_side(network: Network, in_reactor: InReactor) -> None:
    """A slow call does not hold up the others of its connection."""
    service = OneMessage()
    slow: Deferred[list[Appended]] = Deferred()
    service.answer = lambda: slow
    remote = network.message(network.message_node(service))

    def calls() -> Deferred[Any]:
        appended = remote.append([Append(PUSH, 0)])
        pinged = remote.ping().addCallback(lambda _: slow.callback([Appended(0, 16, 0, False)]))
        return gatherResults([appended, pinged])

    assert in_reactor(calls)[0] == [Appended(0, 16, 0, False)]


@pytest.mark.parametrize(
    ("served", "given", "words"),
    [("right", "wrong", "wrong secret"), ("right", "", "no secret"), ("", "given", "this node has none")],
)
def test_a_secret_must_match(
    network: Network, in_reactor: InReactor, logged: Logged, served: str, given: str, words: str
) -> None:
    service = OneMessage()
    remote = network.message(network.message_node(service, served), secret=given)
    for _ in range(3):
        with pytest.raises(UnavailableError, match=words):
            in_reactor(remote.append, [Append(PUSH, 0)])
    assert not remote.connected
    assert service.asked == []
    assert len(logged.lines("is refused: it gives")) == 1
    by_the_other = words != "wrong secret"  # of what this side refuses itself one line is enough
    assert len(logged.lines("cannot be reached: refused")) == by_the_other
    assert not [line for line in logged.lines() if "right" in line or "given" in line]
    assert logged.tracebacks() == []


def test_a_stranger_who_does_not_log_in_is_cut(
    network: Network, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr("gopush.rpc.broker.LOGIN_SECONDS", 0.1)
    port = network.message_node(OneMessage(), "secret")
    before = complained.complaints["connection"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as stranger:
        assert closed_by_peer(stranger)
    eventually(lambda: logged.lines("did not finish the login"))
    assert complained.complaints["connection"] == before + 1


def test_a_login_that_comes_while_the_process_stands_still_counts() -> None:
    clock = Clock()
    transport = StringTransport()
    factory: Any = serve_message(clock, OneMessage(), "secret of the test")
    broker = factory.buildProtocol(None)
    broker.makeConnection(transport)
    clock.advance(2 * LOGIN_SECONDS)  # it wakes, and reads only after what is due
    broker.settled()
    clock.advance(0)
    assert not transport.disconnecting
    assert not clock.getDelayedCalls()


def test_a_crowd_of_strangers_keeps_nobody_out(
    network: Network, in_reactor: InReactor, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """Nor does it take the files of others: the oldest goes."""
    monkeypatch.setattr("gopush.rpc.server.MOST_STRANGERS", 10)
    port = network.message_node(OneMessage(), "secret of the test")
    strangers = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(15)]
    assert all(closed_by_peer(stranger) for stranger in strangers[:5])
    remote = network.message(port, secret="secret of the test")
    eventually(lambda: remote.connected)
    in_reactor(remote.ping)
    strangers[14].settimeout(0.1)
    assert not closed_by_peer(strangers[14])
    assert logged.lines("is one of more than 10 who have not logged in")
    for stranger in strangers:
        stranger.close()


def test_without_a_secret_a_caller_may_be_silent(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopush.rpc.broker.LOGIN_SECONDS", 0.05)
    remote = network.message(network.message_node(OneMessage()))
    eventually(lambda: remote.connected)
    time.sleep(0.3)
    assert remote.connected


def test_a_frozen_peer_costs_one_time_out(network: Network, in_reactor: InReactor) -> None:
    """It accepts, and never answers: the first call waits, the next ones know."""
    limiter = HeldFactory(serve_message(reactor, OneMessage(), ""))
    remote = network.message(network.listen(limiter), timeout=0.3)
    with pytest.raises(UnavailableError, match=r"127.0.0.1:\d+: ping: no answer within 0.3 s"):
        in_reactor(remote.ping)
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(UnavailableError, match="no answer"):
            in_reactor(remote.ping)
    assert time.monotonic() - began < 3


def test_a_peer_that_lets_nobody_in_is_no_stranger(
    network: Network, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """One that is frozen: its kernel goes on accepting."""
    monkeypatch.setattr("gopush.rpc.broker.LOGIN_SECONDS", 0.1)
    before = dict(complained.complaints)
    limiter = HeldFactory(serve_message(reactor, OneMessage(), ""))
    remote = network.message(network.listen(limiter))
    eventually(lambda: len(limiter.held) > 1)
    (line,) = logged.lines("cannot be reached")
    assert line == f"{remote} cannot be reached: no login within 5 s"
    assert complained.complaints == before


def test_what_was_not_sent_in_time_never_is(network: Network, in_reactor: InReactor) -> None:
    service = OneMessage()
    limiter = HeldFactory(serve_message(reactor, service, ""))
    remote = network.message(network.listen(limiter), timeout=0.3)
    with pytest.raises(UnavailableError):
        in_reactor(remote.append, [Append(PUSH, 0)])
    eventually(lambda: limiter.held)
    in_reactor(limiter.open)
    eventually(lambda: remote.connected)
    in_reactor(remote.ping)
    in_reactor(remote.delete, "afterwards")
    assert service.asked == ["afterwards"]


def test_a_call_that_its_caller_cancels_is_not_sent_either(network: Network, in_reactor: InReactor) -> None:
    service = OneMessage()
    limiter = HeldFactory(serve_message(reactor, service, ""))
    remote = network.message(network.listen(limiter))

    def cancelled() -> Deferred[Any]:
        call: Deferred[Any] = remote.append([Append(PUSH, 0)])
        call.cancel()
        return call

    with pytest.raises(UnavailableError, match="given up"):
        in_reactor(cancelled)
    eventually(lambda: limiter.held)
    in_reactor(limiter.open)
    eventually(lambda: remote.connected)
    in_reactor(remote.delete, "afterwards")
    assert service.asked == ["afterwards"]


def cut_and_met_again(service: OneMessage, remote: RemoteMessage, in_reactor: InReactor, logged: Logged) -> None:
    """With one line: the end of the connection is no news."""
    (line,) = eventually(lambda: logged.lines("no answer within"))
    assert line.startswith("<RemoteMessage ")
    service.answer = None
    eventually(lambda: remote.connected)
    assert logged.lines("cannot be reached") == [line]
    assert in_reactor(remote.append, [Append(PUSH, 0)]) == [Appended(0, 0, 0, False)]


def test_a_peer_that_falls_silent_is_cut_and_met_again(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    """What waits for it, in this process or on the way, must not reach it when it wakes. It is no stranger."""
    before = dict(complained.complaints)
    service = OneMessage()
    service.answer = Deferred
    remote = network.message(network.message_node(service), timeout=0.5)
    eventually(lambda: remote.connected)
    with pytest.raises(UnavailableError, match="no answer"):
        in_reactor(remote.append, [Append(PUSH, 0)])
    cut_and_met_again(service, remote, in_reactor, logged)
    assert complained.complaints == before


def test_a_silent_peer_is_cut_though_each_call_is_given_up_sooner(
    network: Network, in_reactor: InReactor, logged: Logged
) -> None:
    """As after a firewall has forgotten the connection: a new one would work."""
    service = OneMessage()
    service.answer = Deferred
    remote = network.message(network.message_node(service), timeout=2)
    eventually(lambda: remote.connected)

    def call() -> Deferred[Any]:
        append: Deferred[Any] = remote.append([Append(PUSH, 0)])
        reactor.callLater(0.4, append.cancel)
        return append

    with pytest.raises(UnavailableError, match="given up by the caller after 0"):
        in_reactor(call)
    reasons = []
    for _ in range(6):
        with pytest.raises(UnavailableError) as given_up:
            in_reactor(call)
        reasons.append(str(given_up.value))
        if "given up" not in reasons[-1]:
            break
    assert reasons[-1].endswith("no answer within 2 s")
    cut_and_met_again(service, remote, in_reactor, logged)


def test_a_peer_that_answers_others_is_not_cut(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    service = OneMessage()
    service.answer = Deferred
    remote = network.message(network.message_node(service), timeout=0.5)
    eventually(lambda: remote.connected)

    def calls() -> Deferred[Any]:
        slow: Deferred[Any] = remote.append([Append(PUSH, 0)])
        remote.ping()
        return slow

    with pytest.raises(UnavailableError, match="no answer"):
        in_reactor(calls)
    assert in_reactor(remote.ping) is None
    assert logged.lines() == []


@pytest.mark.parametrize("silent", [False, True])
def test_a_comet_with_nothing_to_say_is_asked_and_cut_off_where_it_is_silent(
    network: Network, in_reactor: InReactor, logged: Logged, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """The link may let nothing through any more, in one direction or both."""
    monkeypatch.setattr("gopush.rpc.remote.LOOK_SECONDS", 0.1)
    asked: list[Any] = []

    class Feeding(OneComet):
        def feed(self, caller: Any, *requests: Any) -> Deferred[None]:
            asked.append(requests)
            return Deferred() if silent else succeed(None)

        def feed_next(self, caller: Any) -> Deferred[list[FeedItem]]:
            return Deferred()

    met: list[float] = []
    port = network.listen(serve_comet(reactor, Feeding(), ""))
    info = NodeInfo("c", 0, (f"127.0.0.1:{port}",))
    remote = in_reactor(
        RemoteFeedComet, reactor, info, RpcSettings(retry=0.2), 20, None, lambda: met.append(time.monotonic())
    )
    network.callers.append(remote)
    eventually(lambda: met)
    coming: Deferred[Any] = in_reactor(lambda: [remote.feed_next()])[0]
    failures: list[Any] = []
    in_reactor(lambda: coming.addErrback(failures.append) and None)
    eventually(lambda: len(met) > 1 if silent else len(asked) > 5)
    assert asked[0] == ([], [], [])
    assert [failure.type for failure in failures] == [UnavailableError] * silent
    assert bool(logged.lines("cannot be reached: no answer within 0.2 s")) is silent


def test_calls_fail_at_once_when_the_connection_breaks(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    service = OneMessage()
    service.answer = Deferred
    remote = network.message(network.message_node(service), timeout=60)
    eventually(lambda: remote.connected)
    failed: list[Failure] = []

    def call() -> None:
        for _ in range(3):
            remote.append([Append(PUSH, 0)]).addErrback(failed.append)

    in_reactor(call)
    eventually(lambda: len(service.asked) == 3)
    in_reactor(cut_connections)
    eventually(lambda: len(failed) == 3)
    assert all(isinstance(failure.value, UnavailableError) for failure in failed)
    assert "append: connection lost" in str(failed[0].value)
    assert logged.tracebacks() == []


def test_a_call_repeated_from_a_failure_waits_for_the_next_connection(network: Network, in_reactor: InReactor) -> None:
    service = OneMessage()
    service.answer = Deferred
    remote = network.message(network.message_node(service))
    eventually(lambda: remote.connected)

    def call() -> Deferred[Any]:
        reactor.callLater(0.1, cut_connections)
        called: Deferred[Any] = remote.append([Append(PUSH, 0)])
        return called.addErrback(lambda _: remote.ping())

    assert in_reactor(call) is None


def test_a_peer_that_restarts_is_found_again(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    port = network.message_node(OneMessage())
    remote = network.message(port)
    in_reactor(remote.ping)
    network.stop_listening()
    eventually(lambda: not remote.connected)
    with pytest.raises(UnavailableError, match="refused"):
        in_reactor(remote.ping)
    network.message_node(OneMessage(), port=port)
    eventually(lambda: remote.connected)
    assert in_reactor(remote.ping) is None
    assert len(logged.lines("cannot be reached")) == 1


def test_an_unreachable_peer_fails_calls_at_once(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    """Through several attempts to connect, with one line in the log."""
    remote = network.message(free_port(), timeout=60)
    for _ in range(10):
        with pytest.raises(UnavailableError, match=r"^127.0.0.1:\d+: append: .*refused"):
            in_reactor(remote.append, [Append(PUSH, 0)])
        time.sleep(0.1)
    assert len(logged.lines()) == 1


def test_addresses_are_tried_in_order(network: Network, in_reactor: InReactor) -> None:
    good = network.message_node(OneMessage())
    remote = network.message(free_port(), good)
    assert in_reactor(remote.ping) is None


def test_a_stopped_caller_fails_its_calls(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    service = OneMessage()
    service.answer = Deferred
    remote = network.message(network.message_node(service), timeout=60)
    waiting = network.message(network.listen(HeldFactory(None)), timeout=60)
    eventually(lambda: remote.connected)
    failed: list[Failure] = []

    def stop() -> Deferred[Any]:
        for caller in (remote, waiting):
            caller.append([Append(PUSH, 0)]).addErrback(failed.append)
        return gatherResults([remote.stop(), waiting.stop()])

    in_reactor(stop)
    eventually(lambda: len(failed) == 2)
    for caller in (remote, waiting):
        with pytest.raises(UnavailableError, match="stopped"):
            in_reactor(caller.ping)
    assert logged.tracebacks() == []


def test_a_remote_refusal_is_unavailable_and_no_traceback(
    network: Network, in_reactor: InReactor, logged: Logged
) -> None:
    service = OneMessage()
    service.answer = lambda: fail(UnavailableError("Redis is away"))
    remote = network.message(network.message_node(service))
    with pytest.raises(PeerRefusedError, match=r"127.0.0.1:\d+: append: Redis is away"):
        in_reactor(remote.append, [Append(PUSH, 0)])
    assert logged.tracebacks() == []


def test_a_remote_bug_is_logged_where_it_is(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    def broken() -> None:
        raise RuntimeError("the bug")

    service = OneMessage()
    service.answer = broken
    remote = network.message(network.message_node(service))
    with pytest.raises(UnavailableError, match="append: internal error"):
        in_reactor(remote.append, [Append(PUSH, 0)])
    (event,) = logged.tracebacks()
    assert event["log_failure"].check(RuntimeError)


def test_what_cannot_be_packed_fails_alone(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    service = OneMessage()
    remote = network.message(network.message_node(service))
    with pytest.raises(UnavailableError, match="cannot be packed"):
        in_reactor(remote.append, [Append(PUSH, 2**80)])
    service.answer = lambda: succeed([object()])
    with pytest.raises(UnavailableError, match="cannot be packed"):
        in_reactor(remote.append, [Append(PUSH, 0)])
    service.answer = lambda: succeed([("not", "an", "answer")])
    with pytest.raises(UnavailableError, match=r"malformed|no Appended"):
        in_reactor(remote.append, [Append(PUSH, 0)])
    assert logged.tracebacks() == []


def test_what_is_no_call_is_no_method(network: Network) -> None:
    with pytest.raises(AttributeError, match="has no call append"):
        network.comet(free_port()).append([])


def test_a_caller_of_another_version_is_answered(network: Network, in_reactor: InReactor, logged: Logged) -> None:
    port = network.message_node(OneMessage())
    factory = pb.PBClientFactory()

    def call() -> Any:
        reactor.connectTCP("127.0.0.1", port, factory)
        called = factory.getRootObject()
        called.addCallback(lambda root: root.callRemote("ping", [msgpack.packb((99, ()))]))
        return called.addErrback(lambda failure: failure.getErrorMessage())

    assert "format 99" in in_reactor(call)
    in_reactor(factory.disconnect)
    assert logged.tracebacks() == []


def test_nagle_is_off_on_both_sides(network: Network, in_reactor: InReactor) -> None:
    assert all(in_reactor(end.getTcpNoDelay) for end in both_ends(network, in_reactor))


def test_the_kernel_asks_an_idle_peer_on_both_sides(network: Network, in_reactor: InReactor) -> None:
    """No firewall forgets the flow, and an end whose peer is out of reach is closed within 20 s."""
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    for end in both_ends(network, in_reactor):
        assert in_reactor(end.getTcpKeepAlive)
        idle, pause, probes = [end.getHandle().getsockopt(socket.IPPROTO_TCP, name) for name in names]
        assert idle <= 10
        assert idle + pause * probes <= 20


def both_ends(network: Network, in_reactor: InReactor) -> list[Any]:
    """The transports of a connection between two nodes."""
    port = network.message_node(OneMessage())
    remote = network.message(port)
    in_reactor(remote.ping)
    tcp = [one for one in in_reactor(reactor.getReaders) if hasattr(one, "getTcpNoDelay")]
    ends = [one for one in tcp if port in (one.getPeer().port, one.getHost().port)]
    assert len(ends) == 2
    return ends
