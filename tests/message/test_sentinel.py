"""Redis behind Sentinel: the master is found, followed when it moves, and nothing acknowledged is lost (wait = 1)."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from gopush.errors import RET_OK, UnavailableError
from gopush.message.redis.settings import RedisSettings, Source, sources
from gopush.message.redis.store import RedisStore
from gopush.message.store import StoreSettings
from gopush.model import Append, Push
from tests.conftest import InReactor, reactor
from tests.message.conftest import eventually
from tests.message.subject import Subject
from tests.servers import free_port
from tests.servers.redis import RedisServer
from tests.servers.sentinel import MASTER, Replicated

PATIENCE = 60.0
PASSWORD = "s3cret"


@pytest.fixture
def replicated() -> Iterator[Replicated]:
    with Replicated(sentinels=1, password=PASSWORD) as servers:
        yield servers


class Publisher:
    """Appends numbered messages one after the other, each with its id until it is acknowledged."""

    def __init__(self, subject: Subject, keys: int = 8) -> None:
        self._subject = subject
        self._keys = [f"k{i}" for i in range(keys)]
        self._numbers = itertools.count()
        self.acknowledged: dict[str, list[tuple[int, bytes]]] = {key: [] for key in self._keys}
        self.refused = 0

    def push(self, patience: float = PATIENCE) -> None:
        """One message, repeated until it is acknowledged."""
        number = next(self._numbers)
        key, body = self._keys[number % len(self._keys)], b"%d" % number
        deadline = time.monotonic() + patience
        while True:
            push = Push(key, body, 600, f"id-{number}", 300, time.time() + 10)
            (answer,) = self._subject.append(Append(push, 0))
            if answer.ret == RET_OK:
                self.acknowledged[key].append((answer.mid, body))
                return
            self.refused += 1
            assert time.monotonic() < deadline, "no push was stored in time"
            time.sleep(0.1)

    def check(self) -> None:
        """What is kept is what was acknowledged, in its order, each once."""
        for key, acknowledged in self.acknowledged.items():
            assert [(message.mid, message.body) for message in self._subject.read(key)] == acknowledged


def open_store(in_reactor: InReactor, source: str, wait: int = 0, password: str = "") -> Subject:
    settings = RedisSettings(3.0, "gopush:", wait, sources(f"node1:1 {source}"), password)
    return Subject("redis", in_reactor, lambda: RedisStore(StoreSettings(store=10_000), settings, reactor), None)


def test_nothing_acknowledged_is_lost_when_the_master_dies(in_reactor: InReactor, replicated: Replicated) -> None:
    """With wait = 1 the replica that Sentinel makes the master has all; the old master comes back as a replica."""
    subject = open_store(in_reactor, replicated.source, wait=1)
    try:
        publisher = Publisher(subject)
        for _ in range(200):
            publisher.push()
        assert publisher.refused == 0
        replicated.one.kill()
        eventually(lambda: replicated.master is replicated.two, PATIENCE)
        # Its one replica is dead: nothing may be acknowledged.
        (alone,) = subject.append(subject.item("other"))
        assert alone.ret != RET_OK
        replicated.one.start()
        for _ in range(200):
            publisher.push()
        publisher.check()
        assert eventually(replicated.replicates, PATIENCE)
    finally:
        subject.close()


def test_a_master_that_froze_is_left_and_believed_no_more(in_reactor: InReactor, replicated: Replicated) -> None:
    """It wakes as a master and is made a replica: neither appends nor reads go there."""
    subject = open_store(in_reactor, replicated.source)
    process: Any = replicated.one.process
    try:
        publisher = Publisher(subject)
        publisher.push()
        eventually(lambda: replicated.two.call("DBSIZE") == replicated.one.call("DBSIZE"))
        os.kill(process.pid, signal.SIGSTOP)
        eventually(lambda: replicated.master is replicated.two, PATIENCE)
        for _ in range(20):
            publisher.push()
        os.kill(process.pid, signal.SIGCONT)
        for _ in range(20):
            publisher.push()
        publisher.check()
        assert replicated.two.call("LLEN", "gopush:m:k1") == len(publisher.acknowledged["k1"])
    finally:
        os.kill(process.pid, signal.SIGCONT)
        subject.close()


def test_sentinels_that_are_dead_are_passed_over(in_reactor: InReactor) -> None:
    with Replicated(sentinels=1) as servers:
        source = servers.source.replace("sentinel@", f"sentinel@127.0.0.1:{free_port()};")
        subject = open_store(in_reactor, source, wait=1)
        try:
            assert subject.push("k", b"1").ret == RET_OK
            assert subject.bodies() == [b"1"]
        finally:
            subject.close()


def test_sentinels_may_want_a_password(in_reactor: InReactor) -> None:
    servers = Replicated(sentinels=1)
    (sentinel,) = servers.sentinels
    sentinel.password = PASSWORD
    sentinel._config.append(f"requirepass {PASSWORD}")
    with servers:
        subject = open_store(in_reactor, servers.source, password=PASSWORD)
        try:
            assert subject.push("k", b"1").ret == RET_OK
        finally:
            subject.close()


def test_sentinels_that_come_later_are_found(in_reactor: InReactor) -> None:
    """A message node starts without Redis, and needs no restart."""
    servers = Replicated(sentinels=1)
    subject = open_store(in_reactor, servers.source)
    try:
        assert subject.push("k", b"1").ret != RET_OK
        with servers:
            eventually(lambda: subject.push("k", b"1").ret == RET_OK, PATIENCE)
    finally:
        subject.close()


class FakeSentinel(Factory):
    """Says that the master is at `port`; 0: says nothing."""

    noisy = False

    def __init__(self, port: int) -> None:
        self.port = port

    def buildProtocol(self, addr: Any) -> Protocol:
        protocol = Protocol()
        protocol.dataReceived = lambda _: self._answer(protocol)  # type: ignore[assignment,method-assign]
        return protocol

    def _answer(self, protocol: Any) -> None:
        if self.port:
            address = ("127.0.0.1", str(self.port))
            protocol.transport.write(b"*2\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(a), a.encode()) for a in address))


@pytest.fixture
def fakes(in_reactor: InReactor) -> Iterator[tuple[FakeSentinel, str]]:
    """A fake sentinel, and the source that names a mute one before it."""
    fake = FakeSentinel(0)
    ports = [in_reactor(reactor.listenTCP, 0, one, interface="127.0.0.1") for one in (FakeSentinel(0), fake)]
    addresses = ";".join(f"127.0.0.1:{port.getHost().port}" for port in ports)
    yield fake, f"sentinel@{addresses}/{MASTER}"
    for port in ports:
        in_reactor(port.stopListening)


def test_what_sentinels_say_is_checked_and_followed(in_reactor: InReactor, fakes: tuple[FakeSentinel, str]) -> None:
    """A mute sentinel is passed over, a replica is no master, and a new master is found without a lost connection."""
    fake, source = fakes
    with RedisServer() as one, RedisServer(f"replicaof 127.0.0.1 {one.port}") as replica, RedisServer() as other:
        fake.port = replica.port
        subject = open_store(in_reactor, source)
        try:
            in_reactor(deferLater, reactor, 2.5, lambda: None)
            with pytest.raises(UnavailableError):
                subject.bodies()
            fake.port = one.port
            eventually(lambda: subject.push().ret == RET_OK, PATIENCE)
            assert one.call("DBSIZE")
            fake.port = other.port
            eventually(lambda: subject.push().ret == RET_OK and other.call("DBSIZE"), PATIENCE)
        finally:
            subject.close()


class SlowSentinel(FakeSentinel):
    """Takes two seconds to an answer: each comes in time, but not both to the password and to the question."""

    def _answer(self, protocol: Any) -> None:
        reactor.callLater(2, protocol.transport.write, b"+OK\r\n")


def test_a_sentinel_that_does_not_answer_in_time_is_said_in_words(in_reactor: InReactor) -> None:
    port = in_reactor(reactor.listenTCP, 0, SlowSentinel(0), interface="127.0.0.1")
    address = f"127.0.0.1:{port.getHost().port}"
    subject = open_store(in_reactor, f"sentinel@{address}/{MASTER}", password=PASSWORD)

    def reason() -> str:
        with pytest.raises(UnavailableError) as failed:
            subject.bodies()
        return str(failed.value)

    try:
        said = eventually(lambda: (said := reason()).startswith("cannot be reached") and said, PATIENCE)
    finally:
        subject.close()
        in_reactor(port.stopListening)
    assert f"({address}: no answer in time)" in said


def test_how_sentinels_are_written() -> None:
    assert sources(f"a:1 sentinel@h1:26379;[::1]:2/{MASTER}#pass/word") == (
        Source("a", 1, "", 0, "", "pass/word", ("h1:26379", "[::1]:2"), MASTER),
    )
    assert sources("a:1 sentinel@h1:1;h2:2/m")[0].address == "m of the sentinels h1:1, h2:2"
    plain, secured = sources("a:1 sentinel@h:1/m, b:1 rediss-sentinel@h:1/m")
    assert secured == plain._replace(name="b", tls=True)


@pytest.mark.parametrize("value", ["a:1 sentinel@h1:1", "a:1 sentinel@/m", "a:1 sentinel@h1/m", "a:1 sentinel@;/m"])
def test_what_is_no_list_of_sentinels_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="holds"):
        sources(value)
