"""`gopush migrate --from cluster-redis:… --before T`: what gopush-cluster keeps, in a gopush that serves already."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gopush.client import cli
from gopush.message.hbase.take_over import HBaseTakeOver
from gopush.message.redis.store import RedisStore
from gopush.message.redis.take_over import RedisTakeOver
from gopush.message.store import StoreSettings
from gopush.model import mid_at, snap
from tests.chaos.cluster import Node
from tests.clients import TcpClient
from tests.conftest import InReactor, reactor
from tests.message.conftest import eventually, redis_settings
from tests.message.test_migrate import Target, kept, push, started
from tests.message.test_migrate import redis as redis
from tests.message.test_migrate import target as target
from tests.servers.redis import RedisReplyError, RedisServer


class Old(RedisServer):
    """A Redis of gopush-cluster."""

    def keep(self, key: str, body: str, mid: int, expire: float = 600) -> None:
        """As it stores a push that has this mid."""
        member = b'{"msg":%b,"expire":%d}' % (body.encode(), time.time() + expire)
        self.call("ZADD", key, str(mid), member)
        self.call("ZREMRANGEBYRANK", key, 0, -21)


@pytest.fixture
def old() -> Iterator[Old]:
    with Old() as server:
        assert isinstance(server, Old)
        yield server


@pytest.fixture
def gopush(tmp_path: Path, target: Target) -> Iterator[Node]:
    node = started(tmp_path, target)
    yield node
    node.kill()


def take_in(target: Target, before: object, *servers: RedisServer) -> int:
    named = ", ".join(f"node{number}:1 {server.source}" for number, server in enumerate(servers, 1))
    return cli.main(["migrate", "--from", f"cluster-redis:{named}", "--to", target.named, "--before", str(before)])


def test_what_is_older_comes_before_what_was_pushed_to_both(
    old: Old, target: Target, gopush: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    at = mid_at(time.time() - 60)
    now = time.time()
    began = [at + 2, at + 4, at + 40, at + 54]
    for number, mid in enumerate(began):
        old.keep("both", f'"old {number}"', mid)
        old.keep("old", f'{{"n": {number}}}', mid)
    old.keep("old", '"over"', at + 80, expire=-1)
    for number in range(30):  # of which it keeps 20
        old.keep("many", str(number), at + 2 * number)
    old.call("SET", "other", "of somebody else")
    old.call("ZADD", "other set", "7", "of somebody else")
    own = [push(gopush, key, f"new {number}") for number in range(3) for key in ("both", "new")]
    for number in range(3):
        old.keep("both", f'"new {number}"', own[2 * number] + 3)
        old.keep("new", f'"new {number}"', own[2 * number + 1] + 3)
    assert take_in(target, now, old) == 0
    out = capfd.readouterr().out
    assert "of 28 messages of 3 keys 28 moved in " in out
    assert "; 6 are of later" in out
    assert "1 keys that are no sorted sets, 1 members of others" in out

    both = kept(gopush, "both")
    assert [body for _, body in both] == [*(f"old {number}" for number in range(4)), *(f"new {n}" for n in range(3))]
    mids = [mid for mid, _ in both]
    assert mids == sorted(set(mids))
    assert mids == [at, at + 16, at + 48, at + 64, *own[::2]], "a score is snapped, and goes on where it collides"
    assert kept(gopush, "new") == [(mid, f"new {number}") for number, mid in enumerate(own[1::2])]
    assert [body for _, body in kept(gopush, "old")] == [{"n": number} for number in range(4)]
    assert [body for _, body in kept(gopush, "many")] == list(range(10, 30))
    # A device that goes on with a mid of gopush-cluster gets what comes after it.
    with TcpClient(gopush.ports["tcp"]) as device:
        device.subscribe("both", "30", "", "1", str(began[2]))
        assert [json.loads(device.message())["msg"] for _ in range(4)] == ["old 3", "new 0", "new 1", "new 2"]
    assert push(gopush, "old", "on") > mid_at(now)

    before = {key: kept(gopush, key) for key in ("both", "new", "old", "many")}
    old.call("ZREMRANGEBYRANK", "both", 0, 0)  # its neighbour collides no more
    assert take_in(target, now, old) == 0
    assert " 0 moved in " in capfd.readouterr().out
    assert {key: kept(gopush, key) for key in before} == before


def test_a_message_that_never_ends_stops_no_other(old: Old, target: Target, gopush: Node) -> None:
    """Redis has a latest time."""
    at = mid_at(time.time() - 60)
    for key in ("for ever", "other"):
        old.keep(key, '"kept"', at, expire=10**17 if key == "for ever" else 600)
    for _ in range(2):
        assert take_in(target, time.time(), old) == 0
        assert kept(gopush, "for ever") == kept(gopush, "other") == [(snap(at), "kept")]


def test_it_comes_before_all_that_is_there_and_lowers_no_head(old: Old, target: Target, gopush: Node) -> None:
    """Also where the clock of gopush-cluster was ahead."""
    own = push(gopush, "ahead", "new")
    (deleted,) = [push(gopush, "deleted", "gone")]
    cli.main(["delete", "deleted", "--admin", gopush.address("admin")])
    time.sleep(0.01)
    now = time.time()
    for number in range(3):
        old.keep("ahead", str(number), mid_at(now) - 100 + number)
        old.keep("deleted", str(number), deleted - 1000 + 16 * number)
    assert take_in(target, f"{now:.6f}", old) == 0
    assert kept(gopush, "ahead") == [(own - 48, 0), (own - 32, 1), (own - 16, 2), (own, "new")]
    assert kept(gopush, "deleted") == [(snap(deleted - 1000 + 16 * number), number) for number in range(3)]
    assert push(gopush, "deleted", "on") > deleted
    assert push(gopush, "ahead", "on") > own
    with TcpClient(gopush.ports["tcp"]) as device:
        device.subscribe("deleted", "30", "", "1", str(deleted))
        assert json.loads(device.message())["msg"] == "on"


def test_all_servers_are_read_whatever_the_ring_says(
    old: Old, redis: RedisServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Multiple pushes of 1.0.5 are where the ring has the empty key."""
    source = f"node1:1 {redis.source}"
    target = Target(f"redis:{source}", {"storage": {"type": "redis"}, "redis": {"source": source}})
    at = mid_at(time.time() - 60)
    with Old(password="secret") as other:
        assert isinstance(other, Old)
        for number in range(600):
            (old, other)[number % 2].keep(f"key-{number}", str(number), at + number)
        old.keep("key-1", '"private"', at - 100)
        command = [
            "migrate",
            "--from",
            f"cluster-redis:node1:1 {old.source}, node2:2 {other.source}",
            "--to",
            target.named,
        ]
        assert cli.main([*command, "--before", str(at + 500)]) == 0
        assert cli.main([*command, "--before", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())]) == 0
        captured = capfd.readouterr()
        assert "secret" not in captured.out + captured.err
    node = started(tmp_path, target)
    try:
        assert kept(node, "key-1") == [(snap(at - 100), "private"), (snap(at + 1), 1)]
        for number in range(2, 600, 50):
            assert [body for _, body in kept(node, f"key-{number}")] == [number]
    finally:
        node.kill()


UNFIT = {
    "too long": (b"k" * 256, "1", f"'{'k' * 40}'..."),
    "GBK": ("\u9891\u9053".encode("gbk"), "1", r"'\xc6\xb5\xb5\xc0'"),
    "tab": (b"a\tb", "1", r"'a\tb'"),
    "text in GBK": (b"text", '"\u4e2d"', "'text'"),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_messages_that_gopush_cannot_have_are_counted_and_named(
    old: Old, redis: RedisServer, capfd: pytest.CaptureFixture[str], unfit: str
) -> None:
    key, text, shown = UNFIT[unfit]
    target = Target(f"redis:node1:1 {redis.source}", {})
    now = time.time()
    at = mid_at(now - 60)
    old.keep("good", "1", at)
    for number, expire in enumerate((600, 601, -1)):  # one has ended
        member = b'{"msg":%b,"expire":%d}' % (text.encode("gbk"), now + expire)
        old.call("ZADD", key, str(at + 16 * number), member)
    old.call("ZADD", "other set", "7", "of somebody else")
    assert take_in(target, f"{now:.6f}", old) == 3
    captured = capfd.readouterr()
    assert f"gopush: 2 messages were not moved, and never can be (keys: {shown}): a key of gopush is" in captured.err
    assert "of 1 messages of 1 keys 1 moved in " in captured.out
    assert time.strftime("; 0 are of later, not before %Y-%m-%dT%H:%M:%SZ", time.gmtime(now)) in captured.out
    assert "0 keys that are no sorted sets, 1 members of others" in captured.out
    assert redis.call("EXISTS", "gopush:h:good") == 1


def test_a_message_that_is_too_large_for_the_target_is_counted_and_named(
    old: Old, target: Target, gopush: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for store in (RedisTakeOver, HBaseTakeOver):
        monkeypatch.setattr(store, "most_body", 3)
    at = mid_at(time.time() - 60)
    for number, text in enumerate(("1", "1234", "12")):
        old.keep("key", text, at + 16 * number)
    assert take_in(target, time.time(), old) == 3
    captured = capfd.readouterr()
    assert "gopush: 1 messages were not moved, and never can be (keys: 'key'): " in captured.err
    assert "of 3 messages of 1 keys 2 moved in " in captured.out
    assert [body for _, body in kept(gopush, "key")] == [1, 12]


def test_of_many_keys_that_gopush_cannot_have_a_few_are_named(
    old: Old, redis: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(100):
        old.keep(f"\t{number}", "1", mid_at(time.time() - 60))
    assert take_in(Target(f"redis:node1:1 {redis.source}", {}), time.time(), old) == 3
    said = capfd.readouterr().err
    assert re.search(r"gopush: 100 messages were not .*\(keys: ('\\t\d+', ){3}\.\.\.\): ", said), said


@pytest.mark.parametrize("rules", [("~other", "+@all"), ("~*", "+@all", "-zrange"), ("~*", "+@all", "-scan")])
def test_what_redis_does_not_show_is_not_passed_over(
    old: Old, redis: RedisServer, capfd: pytest.CaptureFixture[str], rules: tuple[str, ...]
) -> None:
    old.keep("key", "1", mid_at(time.time() - 60))
    old.call("ACL", "SETUSER", "mover", "on", ">word", *rules)
    source = f"cluster-redis:node1:1 {old.source}#mover:word"
    command = ["migrate", "--from", source, "--to", f"redis:node1:1 {redis.source}", "--before", str(time.time())]
    assert cli.main(command) == 3
    assert "NOPERM" in capfd.readouterr().err


def test_a_redis_that_is_full_of_clients_is_only_away(
    redis: RedisServer, in_reactor: InReactor, capfd: pytest.CaptureFixture[str]
) -> None:
    with Old("maxclients 1") as full, socket.create_connection(("127.0.0.1", full.port)) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(7) == b"+PONG\r\n"
        for source, to in ((full, redis), (redis, full)):
            assert take_in(Target(f"redis:node1:1 {to.source}", {}), time.time(), source) == 1
            assert "ERR max number of clients reached" in capfd.readouterr().err
        store = RedisStore(StoreSettings(), redis_settings(full), reactor)
        in_reactor(store.start)
        in_reactor(store.stop)


def test_a_redis_whose_disk_is_full_can_be_read(old: Old, redis: RedisServer) -> None:
    old.keep("key", "1", mid_at(time.time() - 60))
    old.call("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(old.directory)
    old.call("BGSAVE")

    def refuses() -> bool:
        with suppress(RedisReplyError):
            old.call("PING")
            return False
        return True

    eventually(refuses)
    assert take_in(Target(f"redis:node1:1 {redis.source}", {}), time.time(), old) == 0
    assert redis.call("EXISTS", "gopush:h:key") == 1


@pytest.mark.parametrize(
    ("source", "before", "status", "complaint"),
    [
        ("cluster-redis:node1:1 HERE", [], 3, "--before: goes with --from cluster-redis"),
        ("sqlite:none", ["--before", "16"], 3, "--before: goes with --from cluster-redis"),
        ("cluster-redis:node1:1 HERE", ["--before", "2100-01-01T00:00:00+01:00"], 3, "is still to come"),
        ("cluster-redis:node1:1 HERE", ["--before", "99999999999"], 3, "is still to come"),
        ("cluster-redis:node1:1 HERE", ["--before", "soon"], 2, "'soon' is no time (try 2026-11-26T12:00:00Z"),
        ("cluster-redis:node1:1 HERE", ["--before", "9999-12-31T23:00:00-12:00"], 2, "is no time (try 2026-11-26T12"),
        ("cluster-redis:node1:1 HERE", ["--before", "2025-11-26 12:00"], 2, "no time zone (try 2025-11-26T12:00:00Z"),
        ("cluster-redis:node1:1 HERE", ["--before", "2025-11-26"], 2, "'2025-11-26' names no time zone (try 2025-"),
        ("cluster-redis:node1:1 HERE#word", ["--before", "16"], 3, "gopush: Redis node1: "),
        ("cluster-redis:node1:1 tcp@127.0.0.1:1", ["--before", "16"], 1, "cannot be reached at 127.0.0.1:1"),
        ("cluster-redis:127.0.0.1:1", ["--before", "16"], 1, "cannot be reached at 127.0.0.1:1"),
        ("cluster-redis:node1 tcp@localhost:6379", ["--before", "16"], 3, "which is not name:weight"),
        ("mysql:somewhere", ["--before", "16"], 2, "is not sqlite:FILE, nor cluster-redis:node1:1 tcp@"),
    ],
)
def test_what_cannot_be_taken_in_is_said(
    redis: RedisServer, capfd: pytest.CaptureFixture[str], source: str, before: list[str], status: int, complaint: str
) -> None:
    source = source.replace("HERE", redis.source)
    command = ["migrate", "--from", source, "--to", f"redis:node1:1 {redis.source}", *before]
    if status == 2:  # nothing of it was understood
        with pytest.raises(SystemExit):
            cli.main(command)
    else:
        assert cli.main(command) == status
    assert complaint in capfd.readouterr().err
