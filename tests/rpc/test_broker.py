"""Whatever comes in on the port of the cluster's own calls: it is refused, costs little, and hurts nobody else."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.testing import StringTransport
from twisted.spread import pb
from twisted.spread.banana import decode, encode
from twisted.spread.jelly import InsecureJelly

from gopush.model import Head, Message, NodeInfo, Page, Read
from gopush.rpc.broker import Broker, security
from gopush.rpc.codec import pack
from gopush.rpc.remote import RemoteMessage
from gopush.rpc.settings import RpcSettings
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged, closed_by_peer, eventually
from tests.rpc.serving import serve_message

PAGE_BYTES = 2**20
STRANGERS = 300


class Pages:
    """The calls of a message node that these tests need."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, reads: list[Read]) -> Deferred[list[Page | None]]:
        self.reads += 1
        return succeed([Page([Message(16, bytes(PAGE_BYTES))], Head(16, 0), False) for _ in reads])

    def ping(self) -> Deferred[None]:
        return succeed(None)


class Served:
    """A message node that listens, and a peer that may call it."""

    def __init__(self, in_reactor: InReactor, secret: str) -> None:
        self.service = Pages()
        factory = serve_message(reactor, self.service, secret)
        self.run = in_reactor
        self.listening = in_reactor(reactor.listenTCP, 0, factory, interface="127.0.0.1")
        self.port: int = self.listening.getHost().port
        info = NodeInfo("m", 0, (f"127.0.0.1:{self.port}",))
        self.peer = in_reactor(RemoteMessage, reactor, info, RpcSettings(secret=secret), 20)
        in_reactor(self.peer.ping)

    def connect(self) -> socket.socket:
        """A stranger's connection, past the choice of a dialect."""
        stranger = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        stranger.sendall(expression(b"pb"))
        return stranger

    def close(self) -> None:
        self.run(self.peer.stop)
        self.run(self.listening.stopListening)


def expression(value: Any) -> bytes:
    encoded: bytes = encode(value)
    return encoded


@pytest.fixture(params=["", "secret"], ids=["open", "secret"])
def served(request: pytest.FixtureRequest, in_reactor: InReactor) -> Iterator[Served]:
    served = Served(in_reactor, request.param)
    yield served
    served.close()


@pytest.fixture
def open_door(in_reactor: InReactor) -> Iterator[Served]:
    served = Served(in_reactor, "")
    yield served
    served.close()


def call(name: bytes, *args: Any, luid: Any = b"root", answer: int = 1) -> bytes:
    return expression([b"message", 1, luid, name, answer, [b"tuple", *args], [b"dictionary"]])


def bare_call(name: bytes, *chunks: Any) -> bytes:
    return expression([b"call", 1, name, *chunks])


CUT = {
    "unknown type byte": b"\xff",
    "endless prefix": b"\x01" * 1000,
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n" * 10,
    "long list": b"\x00\x00\x00\x7f\x80",
    "long string": b"\x00\x00\x00\x7f\x82",
    "number": b"\x05\x81",
    "empty list": b"\x00\x80",
    "unknown command": expression([b"shutdown"]),
    "list as command": expression([[b"message"]]),
    "cached object": expression([b"cachemessage", 1, 1, b"x", 1, [b"tuple"], [b"dictionary"]]),
    "decache": expression([b"decache", 1]),
    "too few": expression([b"message", 1]),
    "nobody's object": call(b"ping", luid=77),
    "answer to nothing": expression([b"answer", 5, [b"None"]]),
    "error to nothing": expression([b"error", 5, [b"None"]]),
    "wrong version": expression([b"version", 5]),
    "decref of nothing": expression([b"decref", 99]),
    "no answer": call(b"ping", answer=0),
    "name that is no text": call(b"\xff\xfe"),
    "bare name that is no text": bare_call(b"\xff\xfe"),
    "bare name that is a number": expression([b"call", 1, 5]),
    "bare call without a name": expression([b"call", 1]),
    "reply to nothing": expression([b"reply", 5, b""]),
    "reply to a list": expression([b"reply", [b"x"], b""]),
    "deep lists": b"\x01\x80" * 1000,
    "many elements": expression([b"message", *range(2000)]),
}

ANSWERED = {
    "unknown bare call": bare_call(b"shutdown"),
    "private bare call": bare_call(b"__init__"),
    "bare call named hello": bare_call(b"hello"),
    "bare call of nothing": bare_call(b"ping"),
    "chunks that are numbers": bare_call(b"ping", 5, 6),
    "chunks that are lists": bare_call(b"ping", [b"list", b"x"]),
    "unknown call": call(b"shutdown"),
    "private": call(b"__init__"),
    "no arguments": call(b"ping"),
    "login without a name": call(b"login"),
    "response before a challenge": call(b"respond", b"", [b"None"]),
    "chunks that are none": call(b"ping", [b"list", 5]),
    "module": call(b"ping", [b"module", b"os"]),
    "function": call(b"ping", [b"function", b"os.system"]),
    "class": call(b"ping", [b"class", b"subprocess.Popen"]),
    "instance": call(b"ping", [b"subprocess.Popen", [b"dictionary"]]),
    "reference": call(b"ping", [b"remote", 5]),
    "failure": call(b"ping", [b"twisted.spread.pb.CopyableFailure", [b"dictionary"]]),
}


@pytest.mark.parametrize("name", CUT)
def test_what_is_no_call_ends_the_connection(served: Served, logged: Logged, name: str) -> None:
    with served.connect() as stranger:
        stranger.sendall(CUT[name])
        assert closed_by_peer(stranger)
    assert len(eventually(lambda: logged.lines("connection closed"))) == 1
    assert logged.tracebacks() == []
    served.run(served.peer.ping)


def test_the_address_of_a_peer_in_the_log_is_one_that_can_be_called() -> None:
    broker = Broker()  # type: ignore[no-untyped-call]
    address = IPv6Address("TCP", "2001:db8::1", 6970)
    broker.transport = StringTransport(peerAddress=address)
    assert broker.peer == "[2001:db8::1]:6970"


@pytest.mark.parametrize("name", ANSWERED)
def test_a_call_that_cannot_be_made_is_answered_in_one_line(served: Served, logged: Logged, name: str) -> None:
    with served.connect() as stranger:
        stranger.sendall(ANSWERED[name])
        answer = b""
        while b"Error" not in answer:
            answer += stranger.recv(65536)
    eventually(logged.lines)
    assert len(logged.lines()) == 1
    assert logged.tracebacks() == []
    served.run(served.peer.ping)


@pytest.mark.parametrize(
    "value",
    [
        ([b"batch"],),
        ([b"in", b"chunks"],),
        [b"answer"],
        [],
        ([],),
        (),
        {},
        None,
        ("name", 5),
        [1],
        ([b"a", 1],),
        [[b"a"]],
    ],
    ids=repr,
)
def test_the_short_way_through_pb_gives_what_the_long_way_gives(value: Any) -> None:
    short, long = Broker(), pb.Broker()  # type: ignore[no-untyped-call]
    expected = long.serialize(value)
    assert short.serialize(value) == expected
    read = short.unserialize(decode(expression(expected)))
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    "received",
    [[b"tuple", [b"tuple", b"a"]], [b"list", [b"list", b"a"]], [b"tuple", b"list"], [b"None"], b"list", 7],
    ids=repr,
)
def test_what_only_looks_like_a_batch_goes_the_long_way(received: Any) -> None:
    assert Broker().unserialize(received) == pb.Broker().unserialize(received)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "received", [[], [b"lis", b"os"], [b"module", b"os"], [b"tuple", [b"module", b"os"]]], ids=repr
)
def test_what_is_forbidden_stays_so(received: Any) -> None:
    broker = Broker()  # type: ignore[no-untyped-call]
    broker.security = security()
    with pytest.raises((IndexError, InsecureJelly)):
        broker.unserialize(received)


def test_a_stranger_has_but_a_few_bytes(in_reactor: InReactor, logged: Logged) -> None:
    served = Served(in_reactor, "secret")
    with served.connect() as stranger:
        stranger.sendall(expression([b"version", 6]) * 600)
        assert closed_by_peer(stranger)
    eventually(lambda: logged.lines("too many bytes"))
    served.run(served.peer.ping)
    served.close()


def test_many_strangers_make_few_lines(in_reactor: InReactor, logged: Logged) -> None:
    served = Served(in_reactor, "secret")
    for _ in range(STRANGERS):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as stranger:
            _send(stranger, CUT["text"])
            assert closed_by_peer(stranger)
    served.close()
    eventually(logged.lines)
    assert len(logged.lines()) < STRANGERS / 5


def test_the_memory_of_one_expression_is_bounded(
    open_door: Served, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of empty lists takes thirty times its bytes; a list of long strings never ends."""
    monkeypatch.setattr("gopush.rpc.broker.MAX_BYTES", 2**22)
    tracemalloc.start()
    for hostile in (b"\x00\x00\x20\x80" + b"\x00\x80" * 2**18, b"\x40\x80" + (b"\x00\x00\x10\x82" + bytes(2**18)) * 60):
        with open_door.connect() as stranger:
            threading.Thread(target=_send, args=(stranger, hostile), daemon=True).start()
            assert closed_by_peer(stranger)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
    eventually(lambda: len(logged.lines("connection closed")) == 2)
    open_door.run(open_door.peer.ping)


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        connection.sendall(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(
        st.binary(max_size=20)
        | st.sampled_from([*CUT.values(), *ANSWERED.values()])
        | st.sampled_from([b"\x80", b"\x87"])
    ).map(b"".join)
)
def test_any_bytes_leave_the_others_untouched(served: Served, data: bytes) -> None:
    with served.connect() as stranger:
        _send(stranger, data)
        served.run(served.peer.ping)


def test_a_caller_that_reads_no_answers_is_not_served_on(open_door: Served) -> None:
    """80 pages of a megabyte must not wait in this process."""
    factory = pb.PBClientFactory()
    answers: list[Deferred[Any]] = []

    def ask(root: Any) -> None:
        root.broker.transport.pauseProducing()
        chunks = pack([[Read("k" * 2**16, 0, 1)]])
        answers.extend(root.callRemote("read", chunks) for _ in range(80))

    def connect() -> Any:
        reactor.connectTCP("127.0.0.1", open_door.port, factory)
        return factory.getRootObject().addCallback(ask)

    open_door.run(connect)
    open_door.run(open_door.peer.ping)
    eventually(lambda: open_door.service.reads)
    time.sleep(0.3)
    open_door.run(open_door.peer.ping)
    assert open_door.service.reads < 40
    broker: Any = factory._broker
    open_door.run(broker.transport.resumeProducing)
    open_door.run(lambda: gatherResults(answers))
    assert open_door.service.reads == 80
    open_door.run(factory.disconnect)
