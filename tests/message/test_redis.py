"""What only the Redis store does: servers that fail, come late, come back, or will not do; what is left in Redis."""

from __future__ import annotations

import os
import re
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from gopush.errors import RET_INTERNAL, RET_OK, StartError, UnavailableError
from gopush.hashing import HashRing
from gopush.message.redis.fitness import NEEDED
from gopush.message.redis.settings import RedisSettings
from gopush.message.redis.store import TOUCH_CALLS, RedisStore
from gopush.message.service import StoreService
from gopush.message.store import StoreSettings
from gopush.model import MID_STEP, Appended, TokenState, mid_at
from tests.conftest import InReactor, reactor
from tests.fixtures import lines_logged
from tests.message.conftest import OpenStore, eventually, redis_settings
from tests.message.subject import Subject
from tests.servers.redis import RedisReplyError, RedisServer

Connect = Callable[..., Subject]
KILLS = int(os.environ.get("GOPUSH_REDIS_KILLS", "20"))


@pytest.fixture
def connect(in_reactor: Any) -> Iterator[Connect]:
    """Open a store on these Redis servers."""
    opened: list[Subject] = []

    def connect_one(*servers: RedisServer, store: int = 20, **more: Any) -> Subject:
        settings: RedisSettings = redis_settings(*servers, **more)
        subject = Subject("redis", in_reactor, lambda: RedisStore(StoreSettings(store), settings, reactor), None)
        opened.append(subject)
        return subject

    yield connect_one
    for subject in opened:
        subject.close()


def logged() -> AbstractContextManager[list[str]]:
    """What is logged of Redis meanwhile."""
    return lines_logged(lambda line: line.startswith("Redis "))


def all_keys(server: RedisServer) -> list[bytes]:
    keys: list[bytes] = server.call("KEYS", "*")
    return keys


def test_everything_expires_and_bears_the_prefix(connect: Connect) -> None:
    with RedisServer() as server:
        subject = connect(server, prefix="here:", store=3)
        subject.append(*[subject.item(f"key{n % 7}", id=f"{n}", expire=n % 4, dedupe=5) for n in range(100)])
        for n in range(3):
            subject.append(*[subject.item(f"own{n}{m}", id="own", dedupe=0, deadline=time.time() + 5) for m in "abc"])
        subject.push("late", id="late", dedupe=0, deadline=time.time() - 1)
        subject.push("passing", expire=0)
        subject.push("passing", expire=30)
        subject.delete("key1")
        subject.push("key1", expire=10)
        for seconds in (100, 50):
            subject.create_token("key1", b"%d" % seconds, int(time.time()) + seconds)
        keys = all_keys(server)
        assert len(keys) > 100
        assert all(key.startswith(b"here:") for key in keys)
        assert all(server.call("TTL", key) >= 0 for key in keys)
        assert server.call("TTL", "here:t:key1") > 90
        day = 86400
        assert day <= server.call("TTL", "here:h:key1") <= day + 130
        assert 30 <= server.call("TTL", "here:m:passing") <= 100
        assert server.call("TTL", "here:i:key0\0" + "98") <= 5
        assert server.call("PTTL", "here:o:own") <= 8000
        assert b"here:o:late" not in keys


def test_an_own_id_is_not_forgotten_earlier_for_a_later_batch(connect: Connect, redis: RedisServer) -> None:
    subject = connect(redis, prefix="own:")
    for key, seconds in (("a", 30), ("b", 100), ("c", 10)):
        subject.push(key, id="x", dedupe=0, deadline=subject.now() + seconds)
    assert 95 <= redis.call("TTL", "own:o:x") <= 103


def test_an_own_id_stays_for_an_hour_where_the_clock_of_web_is_a_day_ahead(
    connect: Connect, redis: RedisServer
) -> None:
    """Each push of that day leaves an id, and all of them would wait for the next one."""
    subject = connect(redis, prefix="far:")
    for _ in range(2):
        subject.push(id="x", dedupe=0, deadline=subject.now() + 86400)
        assert 3595 <= redis.call("TTL", "far:o:x") <= 3603


def test_a_log_used_again_and_again_keeps_its_expiry_ahead(connect: Connect, redis: RedisServer) -> None:
    subject = connect(redis, prefix="ahead:")
    subject.push(expire=1)
    subject.push(expire=500)
    subject.push(expire=1)
    assert redis.call("TTL", "ahead:m:k") >= 500
    assert redis.call("TTL", "ahead:h:k") >= 86400 + 500


def test_mids_are_exact_as_doubles(connect: Connect, redis: RedisServer) -> None:
    """protocol.md, section 3: multiples of 16 are exact as doubles until 2426."""
    subject = connect(redis, prefix="exact:", store=1000)
    for floor in (0, mid_at(time.time() + 60), 2**56 + 16 * 12345, 2**57 - 16 * 10_000):
        mids = [answer.mid for answer in subject.append(*[subject.item(floor=floor)] * 100)]
        assert mids == list(range(mids[0], mids[0] + 1600, 16))
        assert mids[0] > floor
        assert [message.mid for message in subject.read(after=mids[0] - 1)] == mids
        kept = redis.call("LRANGE", "exact:m:k", -100, -1)
        assert [int(*struct.unpack_from(">d", member)) for member in kept] == mids


def test_the_clock_is_exact_in_the_script(connect: Connect, redis: RedisServer) -> None:
    subject = connect(redis, prefix="clock:")
    for n in range(300):
        before = time.time()
        mid = subject.push(f"{n}").mid
        assert mid_at(before) - 2 * MID_STEP <= mid <= mid_at(time.time()) + 2 * MID_STEP
        assert mid % MID_STEP == 0


def test_two_message_nodes_at_once_make_one_chain(connect: Connect, redis: RedisServer) -> None:
    nodes = [connect(redis, prefix="two:", store=5000) for _ in range(2)]
    answers: list[Appended] = []

    def write(node: Subject, name: str) -> None:
        for batch in range(50):
            answers.extend(node.append(*[node.item(id=f"{name}{batch}-{n}") for n in range(20)]))

    writers = [threading.Thread(target=write, args=(node, f"{n}")) for n, node in enumerate(nodes)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    chain = sorted(answers, key=lambda answer: answer.mid)
    assert len(chain) == 2000
    assert [answer.previous for answer in chain] == [0, *(answer.mid for answer in chain[:-1])]
    assert [message.mid for message in nodes[0].read()] == [answer.mid for answer in chain]
    assert nodes[1].push(id="00-0").repeat, "an id is known to every node"


def test_keys_are_spread_over_the_servers_by_the_ring(connect: Connect) -> None:
    """protocol.md, section 8: the same ring spreads keys over Redis servers."""
    with RedisServer() as one, RedisServer() as two:
        subject = connect(one, two)
        keys = [f"key{n}" for n in range(50)]
        answers = subject.append(*[subject.item(key, key.encode()) for key in keys])
        assert [subject.bodies(key) for key in keys] == [[key.encode()] for key in keys]
        assert [head.last for head in subject.heads(keys)] == [answer.mid for answer in answers]
        ring = HashRing({"node1": 1, "node2": 1})
        for name, server in (("node1", one), ("node2", two)):
            mine = {key for key in keys if ring.node_of(key) == name}
            assert {key.decode()[9:] for key in all_keys(server) if key.startswith(b"gopush:h:")} == mine
        assert subject.store.shards == (("node1", 1), ("node2", 1))


def test_a_server_that_fails_fails_its_own_keys_only(connect: Connect, in_reactor: Any) -> None:
    with RedisServer() as one, RedisServer() as two:
        subject = connect(one, two)
        ring = HashRing({"node1": 1, "node2": 1})
        keys = [f"key{n}" for n in range(20)]
        subject.append(*[subject.item(key) for key in keys])
        two.kill()
        rets = [answer.ret for answer in subject.append(*[subject.item(key) for key in keys])]
        assert rets == [RET_OK if ring.node_of(key) == "node1" else RET_INTERNAL for key in keys]
        for key in keys:
            if ring.node_of(key) == "node1":
                assert len(subject.read(key)) == 2
            else:
                with pytest.raises(UnavailableError):
                    subject.read(key)
        in_reactor(subject.store.ping)
        one.kill()
        with pytest.raises(UnavailableError):
            eventually(lambda: in_reactor(subject.store.ping))


def test_a_server_may_come_late_and_go_and_come_back(connect: Connect) -> None:
    """One line when it goes, one when it is back, however often it is asked meanwhile."""
    server = RedisServer("appendonly yes", "appendfsync always")
    try:
        with logged() as lines:
            subject = connect(server)
            for _ in range(5):
                assert subject.push().ret == RET_INTERNAL
            assert len(lines) == 1
            assert lines[0].startswith("Redis node1: cannot be reached at 127.0.0.1:")
            server.start()
            first = eventually(lambda: (answer := subject.push()).ret == RET_OK and answer)
            eventually(lambda: lines[1:] == ["Redis node1: all is well again"])
            lines.clear()
            server.kill()
            for _ in range(5):
                assert subject.push().ret == RET_INTERNAL
            away = "the connection was lost; cannot be reached at 127.0.0.1:"
            with pytest.raises(UnavailableError, match=away):
                subject.read()
            assert lines == ["Redis node1: the connection was lost"]
            server.start()
            again = eventually(lambda: (answer := subject.push()).ret == RET_OK and answer)
            eventually(lambda: lines[1:] == ["Redis node1: all is well again"])
            assert again.previous == first.mid
            eventually(lambda: len(subject.read()) == 2)
    finally:
        server.stop()


def test_calls_fail_at_once_while_there_is_no_connection(connect: Connect) -> None:
    subject = connect(RedisServer())
    began = time.monotonic()
    for _ in range(20):
        assert subject.push().ret == RET_INTERNAL
        with pytest.raises(UnavailableError):
            subject.head()
    assert time.monotonic() - began < 2


def test_a_server_that_hangs_is_given_up_after_the_time_out(connect: Connect) -> None:
    with RedisServer() as server, logged() as lines:
        subject = connect(server, timeout=0.5)
        subject.push()
        assert server.process
        os.kill(server.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert subject.push().ret == RET_INTERNAL
        assert time.monotonic() - began < 5
        assert lines == ["Redis node1: no answer within 0.5 s"]
        os.kill(server.process.pid, signal.SIGCONT)
        eventually(lambda: subject.push().ret == RET_OK)
        eventually(lambda: lines[-1] == "Redis node1: all is well again")


def test_a_ping_names_the_server_that_is_silent_or_gone(connect: Connect, in_reactor: InReactor) -> None:
    """Before who asks gives up: also while the next connection waits for its first answer."""
    with RedisServer() as server:
        subject = connect(server, timeout=0.5)
        message = in_reactor(StoreService, subject.store, reactor)
        in_reactor(message.ping)
        assert server.process
        os.kill(server.process.pid, signal.SIGSTOP)
        for _ in range(4):
            began = time.monotonic()
            with pytest.raises(UnavailableError, match=r"^store: Redis node1: no answer within 0\.[45] s$"):
                in_reactor(message.ping)
            assert time.monotonic() - began < 5
        os.kill(server.process.pid, signal.SIGCONT)
        eventually(lambda: subject.push().ret == RET_OK)
    with pytest.raises(UnavailableError, match=r"^store: Redis node1: "):
        in_reactor(message.ping)


def test_one_of_two_servers_that_answers_a_ping_is_enough(connect: Connect, in_reactor: InReactor) -> None:
    """At once; where both hang, both are named."""
    with RedisServer() as one, RedisServer() as two:
        message = in_reactor(StoreService, connect(one, two, timeout=5).store, reactor)
        in_reactor(message.ping)
        for server in (one, two):
            assert server.process
            os.kill(server.process.pid, signal.SIGSTOP)
            began = time.monotonic()
            if server is one:
                in_reactor(message.ping)
                assert time.monotonic() - began < 0.5
            else:
                with pytest.raises(UnavailableError, match=r"^store: Redis node1, node2: no answer within 0\.8 s$"):
                    in_reactor(message.ping)


@pytest.mark.usefixtures("hasty")
def test_kill_9_loses_nothing_that_was_acknowledged(connect: Connect) -> None:
    """With appendfsync always."""
    server = RedisServer("appendonly yes", "appendfsync always").start()
    try:
        subject = connect(server, store=1_000_000, timeout=2)
        acknowledged: list[int] = []
        for _ in range(KILLS):
            killer = threading.Timer(0.1, server.kill)
            killer.start()
            while killer.is_alive():
                acknowledged += [
                    answer.mid for answer in subject.append(*[subject.item()] * 10) if answer.ret == RET_OK
                ]
                time.sleep(0.005)
            killer.join()
            server.start()
            eventually(lambda: subject.push("probe").ret == RET_OK)
        stored = [message.mid for message in eventually_read(subject)]
        assert len(acknowledged) > KILLS * 10
        assert stored == sorted(set(stored))
        assert set(acknowledged) <= set(stored)
    finally:
        server.stop()


def eventually_read(subject: Subject) -> Any:
    def read() -> Any:
        try:
            return subject.read()
        except UnavailableError:
            return None

    return eventually(read)


def test_wait_wants_replicas(connect: Connect) -> None:
    with RedisServer() as master, RedisServer(f"replicaof 127.0.0.1 {master.port}") as replica:
        eventually(lambda: b"state=online" in master.call("INFO", "replication"))
        subject = connect(master, wait=1, timeout=2)
        eventually(lambda: subject.push(id="a").ret == RET_OK)
        assert replica.call("LLEN", "gopush:m:k") == 1
        replica.kill()
        with logged() as lines:
            answers = subject.append(subject.item(id="b"), subject.item(id="c"))
            assert [answer.ret for answer in answers] == [RET_INTERNAL] * 2
            assert lines == ["Redis node1: only 0 of 1 replicas confirmed it in time (700 ms)"]
            replica.start()
            again = eventually(lambda: (answer := subject.push(id="b")).ret == RET_OK and answer)
            assert again.repeat, "it was stored, but not acknowledged"
            assert replica.call("LLEN", "gopush:m:k") == 3
            assert lines[1:] == ["Redis node1: all is well again"]


def test_a_repeat_writes_before_it_waits(connect: Connect, redis: RedisServer) -> None:
    """So that WAIT is about the repeat, and not about nothing."""
    subject = connect(redis, prefix="repeat:")
    for dedupe in (60, 0):
        subject.push(id="a", dedupe=dedupe)
        before = _dirty(redis)
        assert subject.push(id="a", dedupe=dedupe).repeat
        assert _dirty(redis) > before


def _dirty(server: RedisServer) -> int:
    info = dict(line.split(b":") for line in server.call("INFO", "persistence").splitlines() if b":" in line)
    return int(info[b"rdb_changes_since_last_save"])


def test_a_server_that_may_evict_is_refused(connect: Connect) -> None:
    with RedisServer("maxmemory 100mb", "maxmemory-policy allkeys-lru") as server:
        with pytest.raises(StartError) as refused:
            connect(server)
        assert str(refused.value) == (
            "Redis node1: its maxmemory-policy is allkeys-lru, which may drop messages (noeviction is needed)"
        )


def test_a_server_that_began_to_evict_is_refused_until_it_stops(connect: Connect) -> None:
    with RedisServer("maxmemory-policy allkeys-lru") as server:
        subject = connect(server)
        assert subject.push().ret == RET_OK, "without maxmemory nothing is evicted"
        server.call("CONFIG", "SET", "maxmemory", "100mb")
        server.call("CLIENT", "KILL", "TYPE", "normal")
        eventually(lambda: subject.push().ret == RET_INTERNAL)
        server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        eventually(lambda: subject.push().ret == RET_OK)


def test_a_server_that_began_to_evict_is_left_within_seconds(connect: Connect) -> None:
    """Nobody closes the connections."""
    with RedisServer() as server, logged() as lines:
        subject = connect(server)
        assert subject.push().ret == RET_OK
        server.call("CONFIG", "SET", "maxmemory", "100mb")
        server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        for _ in range(TOUCH_CALLS):
            subject.purge()
        eventually(lambda: subject.push().ret == RET_INTERNAL)
        eventually(lambda: lines)
        time.sleep(1)
        assert lines == [
            "Redis node1: its maxmemory-policy is allkeys-lru, which may drop messages (noeviction is needed)"
        ]
        server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        eventually(lambda: subject.push().ret == RET_OK)
        assert len(subject.read()) == 2
        assert lines[1:] == ["Redis node1: all is well again"]


def test_a_password(connect: Connect) -> None:
    with RedisServer(password="s3cret/+") as server:
        assert connect(server).push().ret == RET_OK
        server.password = "wrong"
        with pytest.raises(StartError) as refused:
            connect(server)
        assert "WRONGPASS" in str(refused.value)
        assert "wrong" not in str(refused.value).replace("WRONGPASS", "")
        server.password = None
        with pytest.raises(StartError, match="NOAUTH"):
            connect(server)


ACL = re.search(r"(?m)^ACL SETUSER .*", (Path(__file__).parents[2] / "docs/security.md").read_text())


def with_user(server: RedisServer, *more: str) -> RedisServer:
    """That of docs/security.md, with what is added here."""
    assert ACL
    server.call(*ACL[0].split(), *more)
    server.password = "gopush:PASSWORD"
    return server


def test_a_user_with_the_rights_of_the_documents_can_do_all(connect: Connect) -> None:
    with RedisServer() as server:
        subject = connect(with_user(server), store=3)
        answers = subject.append(*[subject.item(id="own", dedupe=0), *[subject.item(id=f"{n}") for n in range(5)]])
        assert {answer.ret for answer in answers} == {RET_OK}
        repeats = subject.append(subject.item(id="own", dedupe=0), subject.item(id="4"))
        assert [answer.repeat for answer in repeats] == [True, True]
        live = subject.push(expire=600)
        subject.append(*[subject.item("brief", expire=n % 2 + 1) for n in range(3)])
        eventually(lambda: len(subject.read("brief")) < 3)
        assert subject.append(*[subject.item("brief")] * 2)[1].ret == RET_OK
        assert (subject.head().last, subject.read()[-1].mid) == (live.mid, live.mid)
        subject.create_token("k", b"digest", int(time.time()) + 100)
        assert subject.check_token("k", b"digest") == TokenState(True, True)
        assert len(subject.tokens("k")) == 1
        assert subject.revoke_token("k", b"digest")
        subject.delete()
        assert subject.read() == []
        server.password = None
        assert server.call("ACL", "LOG") == []


@pytest.mark.parametrize(
    ("less", "named"),
    [
        *(("-ltrim", "LTRIM"), ("-evalsha", "EVALSHA"), ("-wait", "WAIT"), ("-@list", "RPUSH, LPUSH")),
        # What cannot be deleted, nor end, must not be made.
        *(("-del -expireat -pexpire -@list", "DEL"), ("resetkeys", "DEL"), ("resetkeys ~gopush:[hmlstoi]*", "DEL")),
    ],
)
def test_a_user_with_fewer_rights_is_refused(connect: Connect, less: str, named: str) -> None:
    """A script ended halfway: the message was stored, and its repeat acknowledged, but no head led to it."""
    with RedisServer() as server:
        said = rf"it refuses {named}.* \(tried on gopush:rights:…; all names that begin with gopush: are needed: "
        with pytest.raises(StartError, match=said):
            connect(with_user(server, *less.split()), wait=1)
        server.password = None
        assert all_keys(server) == []


def test_a_right_that_is_withdrawn_is_named_and_what_it_serves_is_refused_until_it_is_back(
    connect: Connect, in_reactor: InReactor
) -> None:
    with RedisServer() as server, logged() as lines:
        subject = connect(with_user(server), store=1)
        assert subject.push().ret == RET_OK
        server.password = None
        server.call("ACL", "SETUSER", "gopush", "-ltrim")
        for _ in range(TOUCH_CALLS):
            subject.purge()

        def is_named() -> bool:
            try:
                in_reactor(subject.store.ping)
            except UnavailableError as failed:
                return "it refuses LTRIM (tried on gopush:rights:…" in str(failed)
            return False

        eventually(is_named)
        kept = server.call("LLEN", "gopush:m:k")
        assert subject.push().ret == RET_INTERNAL
        assert server.call("LLEN", "gopush:m:k") == kept
        server.call("ACL", "SETUSER", "gopush", "+ltrim")
        eventually(lambda: subject.push().ret == RET_OK)
        assert len(subject.read()) == 1
    assert any(line.startswith("Redis node1: it refuses LTRIM (tried on ") for line in lines)


def test_a_user_without_wait_does_where_nothing_waits_for_replicas(connect: Connect) -> None:
    with RedisServer() as server:
        assert connect(with_user(server, "-wait")).push().ret == RET_OK


def test_all_that_scripts_run_is_tried_at_the_start() -> None:
    tried = {needed.split()[0] for needed in NEEDED}
    folder = files("gopush.message.redis") / "lua"
    run = {name for script in folder.iterdir() for name in re.findall(r"call\('(\w+)'", script.read_text())}
    assert run < tried
    assert ACL
    assert {word[1:].partition("|")[0].upper() for word in ACL[0].split() if word[0] == "+"} == {*tried, "ROLE", "WAIT"}


def test_missing_replicas_are_not_taken_for_a_missing_server(connect: Connect, in_reactor: InReactor) -> None:
    """Who asks a message node waits for it as long as that waits for Redis, where one WAIT holds up the next."""
    with RedisServer() as server:
        subject = connect(server, wait=1, timeout=2.0)

        def refused_after() -> Deferred[list[float]]:
            """Seconds."""
            began = time.monotonic()
            for _ in range(TOUCH_CALLS):
                subject.store.purge()
            calls = [subject.store.append([subject.item()]), subject.store.delete("k"), subject.store.ping()]
            return gatherResults([call.addBoth(lambda _: time.monotonic() - began) for call in calls])

        assert max(in_reactor(refused_after)) < 1.6
        assert subject.push().ret == RET_INTERNAL


def test_replicas_that_are_missing_are_looked_for_at_each_purge(connect: Connect, in_reactor: InReactor) -> None:
    """Where nobody pushes or reads, nothing else would find that they are back: it took up to 5 s."""
    with RedisServer() as server:
        subject = connect(server, wait=1, timeout=0.5)
        (shard,) = subject.store._servers.values()
        for _ in range(TOUCH_CALLS):
            in_reactor(subject.store.purge)
        assert shard.replication.missing
        with RedisServer(f"replicaof 127.0.0.1 {server.port}") as replica:
            eventually(lambda: b"state=online" in server.call("INFO", "replication"))
            server.call("SET", "follows", 1)
            eventually(lambda: replica.call("EXISTS", "follows"))
            for _ in range(TOUCH_CALLS - 1):
                in_reactor(subject.store.purge)
            assert not shard.replication.missing


def test_a_server_out_of_memory_stores_nothing_until_it_has_some(connect: Connect) -> None:
    with RedisServer("maxmemory-policy noeviction") as server, logged() as lines:
        subject = connect(server)
        own = subject.push("own", id="own", dedupe=0)
        first = subject.push(id="first")
        server.call("CONFIG", "SET", "maxmemory", "1")
        again = subject.append(subject.item(id="first"), subject.item("own", id="own", dedupe=0))
        assert again == [answer._replace(repeat=True) for answer in (first, own)], "a repeat needs no memory"
        for _ in range(3):
            answers = subject.append(subject.item(), subject.item(id="first"), subject.item())
            assert {answer.ret for answer in answers} == {RET_INTERNAL}
            for _ in range(TOUCH_CALLS):
                subject.purge()
        assert lines == ["Redis node1: OOM command not allowed when used memory > 'maxmemory'."]
        assert subject.head().last == first.mid
        server.call("CONFIG", "SET", "maxmemory", "0")
        assert subject.push().previous == first.mid
        assert lines[1:] == ["Redis node1: all is well again"]


def test_a_server_that_still_loads_is_waited_for(connect: Connect) -> None:
    server = RedisServer("appendonly yes", "appendfsync always", "key-load-delay 300").start()
    try:
        first = connect(server)
        last = first.append(*[first.item(f"{n}") for n in range(3000)])[-1]
        server.kill()
        loading = threading.Thread(target=server.start)
        loading.start()
        eventually(lambda: "LOADING" in _answer_to_set(server))
        subject = connect(server)
        assert subject.push("2999").ret == RET_INTERNAL
        loading.join()
        answer = eventually(lambda: (found := subject.push("2999")).ret == RET_OK and found)
        assert answer.previous == last.mid
    finally:
        server.stop()


def _answer_to_set(server: RedisServer) -> str:
    try:
        return str(server.call("GET", "x"))
    except (OSError, RedisReplyError) as wrong:
        return str(wrong)


def test_a_replica_stores_nothing(connect: Connect) -> None:
    with RedisServer() as server, logged() as lines:
        subject = connect(server)
        server.call("REPLICAOF", "127.0.0.1", 1)
        assert subject.push().ret == RET_INTERNAL
        assert "READONLY" in lines[0]
        server.call("REPLICAOF", "NO", "ONE")
        assert subject.push().ret == RET_OK


def test_what_must_not_be_done_twice_is_sent_again_where_it_was_refused(connect: Connect) -> None:
    """A server that has become a replica has done nothing: with the next connection it may be a master again."""
    with RedisServer() as server:
        subject = connect(server)
        subject.push()
        server.call("REPLICAOF", "127.0.0.1", 1)
        threading.Timer(0.3, lambda: server.call("REPLICAOF", "NO", "ONE")).start()
        subject.delete()
        assert subject.bodies() == []


def test_scripts_that_were_flushed_are_sent_again(connect: Connect) -> None:
    with RedisServer() as server:
        subject = connect(server, wait=0)
        first = subject.push()
        server.call("SCRIPT", "FLUSH")
        assert subject.push().previous == first.mid
        server.call("SCRIPT", "FLUSH")
        assert len(subject.read()) == 2


def test_a_unix_socket(connect: Connect, in_reactor: Any) -> None:
    with RedisServer("unixsocket redis.sock") as server:
        path = server.directory / "redis.sock"
        server.where = f"unix@{path}"
        assert connect(server).push().ret == RET_OK


def test_many_expired_messages_are_dropped_before_others_are_trimmed(open_store: OpenStore) -> None:
    """A key's soonest expiry is only a bound: it must stay one through trims, deletes and rests."""
    subject = open_store("redis", store=5)
    subject.append(*[subject.item(body=b"old", expire=1)] * 3, *[subject.item(body=b"long")] * 2)
    time.sleep(1.1)
    subject.append(*[subject.item(body=b"new")] * 3)
    assert subject.bodies() == [b"long"] * 2 + [b"new"] * 3
    assert subject.head().trimmed == 0
    subject.delete()
    subject.append(*[subject.item(body=b"%d" % n) for n in range(7)])
    assert subject.bodies() == [b"2", b"3", b"4", b"5", b"6"]


def test_the_work_of_an_append_does_not_grow_with_what_a_key_keeps(connect: Connect) -> None:
    """One message in a full log has expired: the script must not read all of it. Counted, not timed."""
    with RedisServer() as server:
        subject = connect(server, store=5000)
        subject.append(subject.item(body=b"first"), subject.item(body=b"expires", expire=1))
        for _ in range(5):
            subject.append(*[subject.item(body=b"x" * 1000)] * 1000)
        time.sleep(1.1)
        before = _bytes_out(server)
        subject.append(*[subject.item(body=b"new")] * 2)
        assert _peak_of_scripts(server) < 3_000_000
        assert _bytes_out(server) - before < 10_000
        assert len(subject.read()) == 5000
        assert subject.head().trimmed > 0


def test_what_expired_far_behind_is_looked_for_once_a_second(connect: Connect, redis: RedisServer) -> None:
    """One expired message behind those that an append looks at: they were read again at every append."""
    subject = connect(redis, store=300, prefix="behind:")
    subject.append(*[subject.item()] * 290, subject.item(expire=1), *[subject.item()] * 9)
    time.sleep(1.1)
    before, began = calls(redis, "lrange"), time.monotonic()
    for _ in range(40):
        subject.append(subject.item())
    assert calls(redis, "lrange") - before <= time.monotonic() - began + 1
    time.sleep(1)
    subject.append(subject.item())
    (numbers,) = subject.store.numbers.values()
    assert numbers.counters.expired == 1


def test_what_expired_is_dropped_at_once_where_nothing_else_is_among_the_oldest(open_store: OpenStore) -> None:
    subject = open_store("redis", store=600)
    subject.append(*[subject.item(expire=1)] * 600)
    time.sleep(1.1)
    for _ in range(60):
        subject.append(*[subject.item()] * 10)
    assert subject.head().trimmed == 0


def calls(server: RedisServer, command: str) -> int:
    """How often this command has been run."""
    stats = server.call("INFO", "commandstats").decode()
    (line,) = [line for line in stats.splitlines() if line.startswith(f"cmdstat_{command}:")] or ["calls=0,"]
    return int(line.partition("calls=")[2].partition(",")[0])


def _bytes_out(server: RedisServer) -> int:
    info = dict(line.split(b":") for line in server.call("INFO", "stats").splitlines() if b":" in line)
    return int(info[b"total_net_output_bytes"])


def _peak_of_scripts(server: RedisServer) -> int:
    info = dict(line.split(b":") for line in server.call("INFO", "memory").splitlines() if b":" in line)
    return int(info[b"used_memory_lua"])
