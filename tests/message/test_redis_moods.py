"""A Redis that closes or forgets connections, that moves, that some of the way to it is lost: no push is refused."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from gopush.errors import RET_INTERNAL, RET_OK, StartError, UnavailableError
from gopush.message.redis.store import RedisStore
from gopush.message.rules import UNAVAILABLE
from gopush.message.service import StoreService
from gopush.message.store import StoreSettings
from gopush.model import Append, Appended, Push, Read
from tests.conftest import InReactor, reactor
from tests.message.conftest import eventually, redis_settings
from tests.message.subject import Subject
from tests.message.test_redis import calls, logged
from tests.servers import free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer

Connect = Callable[..., Subject]


@pytest.fixture
def connect(in_reactor: InReactor) -> Iterator[Connect]:
    """Open a store on a Redis server, by way of a port."""
    opened: list[Subject] = []

    def connect_one(server: RedisServer, port: int | None = None, **more: Any) -> Subject:
        through = RedisServer(password=server.password)
        through.where = f"tcp@127.0.0.1:{port or server.port}"
        settings = redis_settings(through, **more)
        opened.append(Subject("redis", in_reactor, lambda: RedisStore(StoreSettings(), settings, reactor), None))
        return opened[-1]

    yield connect_one
    for subject in opened:
        subject.close()


def push_for(subject: Subject, seconds: float, pause: float) -> list[Appended]:
    """A push with an id now and then."""
    answers: list[Appended] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answers.append(subject.push(id=f"{len(answers)}"))
        time.sleep(pause)
    return answers


def test_a_server_that_closes_idle_connections_costs_no_push(connect: Connect) -> None:
    with RedisServer("timeout 1") as server, logged() as lines:
        subject = connect(server)
        answers = push_for(subject, 8, 2.4)
        assert [answer.ret for answer in answers] == [RET_OK] * len(answers)
        assert lines == []


def test_a_call_that_comes_before_the_first_connection_waits_for_it(in_reactor: InReactor) -> None:
    """A process listens before its store has connected."""
    with RedisServer() as server, logged() as lines:
        store: RedisStore = in_reactor(RedisStore, StoreSettings(), redis_settings(server), reactor)
        push = Append(Push("k", b"1", 600, "", 60, time.time() + 60), 0)

        def start() -> Deferred[list[Any]]:
            store.start()
            called: list[Deferred[Any]] = [store.append([push]), store.read([Read("k", 0, 9)])]
            return gatherResults(called)

        (answer,), (page,) = in_reactor(start)
        assert answer.ret == RET_OK
        assert page.head.last in (0, answer.mid)
        in_reactor(store.stop)
        assert lines == []


def test_one_that_is_stopped_while_it_connects_says_nothing(in_reactor: InReactor) -> None:
    def start_and_stop() -> Deferred[None]:
        store.start()
        return store.stop()

    with RedisServer() as server, logged() as lines:
        store: RedisStore = in_reactor(RedisStore, StoreSettings(), redis_settings(server), reactor)
        in_reactor(start_and_stop)
        assert lines == []


def test_a_stop_while_it_looks_after_the_server_is_no_trouble(in_reactor: InReactor) -> None:
    def touch_and_stop() -> Deferred[None]:
        server = store._servers["node1"]
        server.touch()
        return Deferred.fromCoroutine(server.stop())

    with RedisServer() as server, logged() as lines:
        store: RedisStore = in_reactor(RedisStore, StoreSettings(), redis_settings(server), reactor)
        in_reactor(store.start)
        in_reactor(touch_and_stop)
        assert lines == []


def test_a_stop_during_the_first_attempt_is_no_trouble(in_reactor: InReactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, logged() as lines:
        through = RedisServer()
        through.where = f"tcp@127.0.0.1:{silent.getsockname()[1]}"
        store: RedisStore = in_reactor(RedisStore, StoreSettings(), redis_settings(through), reactor)
        started: list[object] = []

        def start() -> None:
            store.start().addBoth(started.append)

        in_reactor(start)
        with silent.accept()[0]:
            in_reactor(store.stop)
            in_reactor(lambda: deferLater(reactor, 0.1))
        assert started == [None]
        assert lines == []
        assert store.numbers["node1"].counters.failed == 0


@pytest.mark.usefixtures("hasty")
def test_connections_that_are_cut_are_made_anew_at_once_and_calls_go_there(connect: Connect) -> None:
    """The script may have run before the cut: the id tells."""
    with RedisServer() as server:
        subject = connect(server)
        answers: list[Appended] = []
        for number in range(30):
            server.call("CLIENT", "KILL", "TYPE", "normal")
            answers.append(subject.push(id=f"{number}"))
            assert len(subject.read()) == min(number + 1, 20)
            time.sleep(0.02 if number % 10 else 0.2)
        assert [answer.ret for answer in answers] == [RET_OK] * 30
        assert [answer.previous for answer in answers] == [0, *(answer.mid for answer in answers[:-1])]


def test_connections_that_a_firewall_forgets_are_noticed_before_anybody_calls(connect: Connect) -> None:
    with RedisServer() as server, Proxy(server.port) as way:
        subject = connect(server, way.port, timeout=1)
        assert subject.push(id="a").ret == RET_OK
        made = way.made
        way.forget()
        eventually(lambda: way.made >= made + 2)
        began = time.monotonic()
        assert subject.push(id="b").ret == RET_OK
        assert time.monotonic() - began < 1, "the connection is new already"


def test_a_call_on_a_connection_that_a_firewall_forgot_goes_to_the_next_one(connect: Connect) -> None:
    with RedisServer() as server, Proxy(server.port) as way:
        subject = connect(server, way.port, timeout=1)
        first = subject.push(id="a")
        way.forget()
        answer = subject.push(id="b")
        assert (answer.ret, answer.previous) == (RET_OK, first.mid)


def test_an_address_that_leads_to_another_server_is_asked_anew(connect: Connect) -> None:
    """The old master has become a replica, and its clients are not disconnected."""
    with RedisServer() as one, RedisServer() as two, Proxy(one.port) as way:
        subject = connect(one, way.port)
        assert subject.push(id="a").ret == RET_OK
        time.sleep(0.6)
        one.call("REPLICAOF", "127.0.0.1", two.port)
        way.to = two.port
        assert subject.push(id="b").ret == RET_OK
        assert two.call("LLEN", "gopush:m:k") == 1


def test_a_master_that_becomes_a_replica_while_its_replicas_are_awaited_refuses_nothing(connect: Connect) -> None:
    """It answers WAIT with UNBLOCKED: another message node may reach the new master."""
    with RedisServer() as server:
        subject = connect(server, wait=1, timeout=6)

        def demote() -> None:
            eventually(lambda: server.call("EXISTS", "gopush:m:k"))
            server.call("REPLICAOF", "127.0.0.1", 1)

        demoting = threading.Thread(target=demote)
        demoting.start()
        (answer,) = subject.append(subject.item(id="a"))
        demoting.join()
        assert answer is UNAVAILABLE


def test_reads_leave_a_server_that_has_become_a_replica_with_the_writes(connect: Connect) -> None:
    """A replica answers them for good: it is silent about what the new master has meanwhile."""
    with RedisServer() as one, RedisServer(f"replicaof 127.0.0.1 {one.port}") as two, Proxy(one.port) as way:
        eventually(lambda: b"state=online" in one.call("INFO", "replication"))
        subject = connect(one, way.port)
        assert subject.push(id="a").ret == RET_OK
        assert len(subject.read()) == 1
        time.sleep(0.6)
        eventually(lambda: two.call("LLEN", "gopush:m:k") == 1)
        two.call("REPLICAOF", "NO", "ONE")
        one.call("REPLICAOF", "127.0.0.1", 1)  # which is never there: it stays as it is
        way.to = two.port
        assert subject.push(id="b").ret == RET_OK
        assert len(subject.read()) == 2


def test_reads_stay_with_a_replica_where_there_is_no_other_server(connect: Connect) -> None:
    """They are answered there; the writes look for another one again and again."""
    with RedisServer() as server, Proxy(server.port) as way:
        subject = connect(server, way.port)
        assert subject.push(id="a").ret == RET_OK
        server.call("REPLICAOF", "127.0.0.1", 1)
        assert subject.push(id="b").ret == RET_INTERNAL
        made, waited = way.made, 0
        for _ in range(5):
            subject.push(id="b")
            began = time.monotonic()
            assert len(subject.read()) == 1
            waited += time.monotonic() - began > 0.3
        assert way.made - made > 2, "the writes tried"
        assert waited < 2, "most reads waited for no connection"


@pytest.mark.usefixtures("hasty")
def test_reads_leave_a_replica_also_where_its_address_leads_on_later(connect: Connect) -> None:
    """The writes find it out first: what comes back before them may meet the old server once more."""
    with RedisServer() as one, RedisServer(f"replicaof 127.0.0.1 {one.port}") as two, Proxy(one.port) as way:
        eventually(lambda: b"state=online" in one.call("INFO", "replication"))
        subject = connect(one, way.port)
        assert subject.push(id="a").ret == RET_OK
        eventually(lambda: two.call("LLEN", "gopush:m:k") == 1)
        two.call("REPLICAOF", "NO", "ONE")
        one.call("REPLICAOF", "127.0.0.1", 1)
        for _ in range(5):
            assert subject.push(id="b").ret == RET_INTERNAL
            assert len(subject.read()) == 1
        way.to = two.port
        eventually(lambda: subject.push(id="b").ret == RET_OK)
        assert len(subject.read()) == 2


def test_a_message_node_without_a_way_to_write_says_so_and_refuses_nothing(
    connect: Connect, in_reactor: InReactor
) -> None:
    """Delivery rule 8: another message node may have one, so its callers must ask that."""
    with RedisServer() as server, Proxy(server.port) as way:
        subject = connect(server, way.port, timeout=1)
        message = StoreService(subject.store, reactor)
        item = subject.item(id="a")
        assert in_reactor(message.append, [item])[0].ret == RET_OK
        in_reactor(message.ping)
        in_reactor(subject.store.read, [Read("k", 0, 1)])
        store: Any = subject.store
        link = store._servers["node1"]
        way.refuses = True
        # Only the connection that writes is gone; the other one still answers.
        in_reactor(lambda: link._writes._ready.transport.abortConnection())
        eventually(lambda: link._writes._ready is None)
        assert len(subject.read()) == 1
        with pytest.raises(UnavailableError):
            in_reactor(message.append, [subject.item(id="b")])
        with pytest.raises(UnavailableError):
            in_reactor(message.ping)
        way.refuses = False
        eventually(lambda: _pings(in_reactor, message))
        assert in_reactor(message.append, [subject.item(id="b")])[0].ret == RET_OK


def _pings(in_reactor: InReactor, message: StoreService) -> bool:
    try:
        in_reactor(message.ping)
    except UnavailableError:
        return False
    return True


def test_what_too_few_replicas_have_is_not_reported(connect: Connect) -> None:
    """With wait = 1: after a fail-over it would be gone, its id too, and come again under another mid."""
    with RedisServer() as master, RedisServer(f"replicaof 127.0.0.1 {master.port}") as replica:
        eventually(lambda: b"state=online" in master.call("INFO", "replication"))
        subject = connect(master, wait=1, timeout=2)
        other = connect(master, wait=1, timeout=2)
        eventually(lambda: subject.push(id="a").ret == RET_OK)
        first = eventually(lambda: pushed if (pushed := subject.push("still", id="s")).ret == RET_OK else None)
        replica.kill()
        assert subject.push(id="b").ret == RET_INTERNAL
        assert master.call("LLEN", "gopush:m:k") == 2, "the script has run"
        for node in (subject, other):
            with pytest.raises(UnavailableError):
                node.read()
            with pytest.raises(UnavailableError):
                node.head()
        assert [message.mid for message in subject.read("still")] == [first.mid], "what they have is told"
        replica.start()
        eventually(lambda: subject.push(id="b").repeat)
        assert [len(node.read()) for node in (subject, other)] == [2, 2]


def test_what_replicas_have_is_reported_without_asking_them_each_time(connect: Connect) -> None:
    with RedisServer() as master, RedisServer(f"replicaof 127.0.0.1 {master.port}"):
        eventually(lambda: b"state=online" in master.call("INFO", "replication"))
        subject = connect(master, wait=1, timeout=2)
        eventually(lambda: subject.push(id="a").ret == RET_OK)
        before = calls(master, "wait")
        for _ in range(50):
            assert len(subject.read()) == 1
        assert calls(master, "wait") - before < 10


def test_a_batch_that_wrote_nothing_does_not_tell_what_replicas_have(connect: Connect) -> None:
    """WAIT after it is about nothing, or about what was written long before."""
    with RedisServer() as master, RedisServer(f"replicaof 127.0.0.1 {master.port}"):
        eventually(lambda: b"state=online" in master.call("INFO", "replication"))
        subject = connect(master, wait=1, timeout=2)
        eventually(lambda: subject.push(id="a").ret == RET_OK)
        (server,) = subject.store._servers.values()
        known = server.replication.until
        time.sleep(0.01)
        assert subject.push(id="late", deadline=1.0).ret == RET_INTERNAL
        assert server.replication.until == known > 0
        assert subject.push(id="a").repeat
        assert server.replication.until > known


def test_a_server_in_cluster_mode_is_refused(connect: Connect) -> None:
    with (
        RedisServer("cluster-enabled yes", f"cluster-port {free_port()}") as server,
        pytest.raises(StartError, match="cluster mode"),
    ):
        connect(server)


def test_users_of_redis_and_passwords_with_a_colon(connect: Connect) -> None:
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "gopush", "on", ">s3cret:1", "~gopush:*", "+@all")
        server.password = "gopush:s3cret:1"
        assert connect(server).push().ret == RET_OK
        server.password = "gopush:wrong"
        with pytest.raises(StartError, match="WRONGPASS"):
            connect(server)
    with RedisServer(password="a:b") as server:
        assert connect(server).push().ret == RET_OK


def test_a_clock_that_differs_is_named(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line when it begins and one when it ends; the figure is in the metrics."""
    ahead = 0.0
    real = time.time
    with RedisServer() as server, logged() as lines:
        subject = connect(server)
        with monkeypatch.context() as patch:
            ahead = -10.0
            patch.setattr("gopush.message.redis.link.time.time", lambda: real() + ahead)
            eventually(lambda: lines)
            time.sleep(1.5)
            assert lines == [
                "Redis node1: its clock is 10.0 s ahead of this process's (run NTP: pushes have a deadline)"
            ]
            assert 9 < subject.store.numbers["node1"].skew < 11
        eventually(lambda: lines[1:] == ["Redis node1: all is well again"])


def test_a_server_that_has_too_many_clients_is_waited_for(connect: Connect) -> None:
    """It takes more in a moment: a message node that starts just then ended."""
    with RedisServer() as server, ExitStack() as others:
        server.call("CONFIG", "SET", "maxclients", 4)
        for _ in range(4):
            others.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        subject = connect(server)
        others.close()
        eventually(lambda: subject.push().ret == RET_OK)


def test_the_clock_is_looked_at_without_a_call(connect: Connect) -> None:
    """By both connections: where replicas are away no write tells of it."""
    with RedisServer() as server:
        (store,) = connect(server).store._servers.values()
        first = eventually(lambda: len(store.replication._clocks) == 2 and dict(store.replication._clocks))
        eventually(lambda: all(store.replication._clocks[part] > first[part] for part in ("reads", "writes")))


def test_a_ping_writes(connect: Connect, in_reactor: InReactor) -> None:
    """Where pushes would fail a process is not ready."""
    with RedisServer("maxmemory-policy noeviction") as server, logged() as lines:
        subject = connect(server)
        in_reactor(subject.store.ping)
        server.call("CONFIG", "SET", "maxmemory", "1")
        for _ in range(3):
            with pytest.raises(UnavailableError, match="OOM"):
                in_reactor(subject.store.ping)
        assert len(lines) == 1
        subject.delete()
        server.call("CONFIG", "SET", "maxmemory", "0")
        in_reactor(subject.store.ping)
        assert lines[1:] == ["Redis node1: all is well again"]


def test_an_old_log_is_read_and_written_by_both(connect: Connect) -> None:
    """A rolling upgrade: an older message node knows nothing of the size of a log's largest message."""
    with RedisServer() as server:
        subject = connect(server)
        subject.append(*[subject.item(body=b"x" * 100_000)] * 5)
        head = server.call("GET", "gopush:h:k")
        assert len(head) == 40
        server.call("SET", "gopush:h:k", head[:32], "KEEPTTL")
        assert len(subject.read()) == 5
        subject.push(body=b"y")
        assert len(subject.read()) == 6
        assert server.call("GET", "gopush:h:k")[:8] > head[:8]
