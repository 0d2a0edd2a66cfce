"""What `gopush migrate` asks of Redis, where calls go wrong halfway."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from gopush.errors import RET_OK, UnavailableError
from gopush.message.original import OldLog, OldMessage
from gopush.message.redis.store import RedisStore
from gopush.message.redis.take_over import RedisTakeOver
from gopush.message.rules import KeptLog
from gopush.message.store import StoreSettings
from gopush.model import Appended, Token, mid_at
from tests.conftest import InReactor, reactor
from tests.message.conftest import redis_settings
from tests.message.subject import Subject
from tests.message.test_redis import calls
from tests.servers.redis import RedisServer

BIG = b"x" * 200_000


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
def target(in_reactor: InReactor, server: RedisServer) -> Iterator[Any]:
    taking: Any = in_reactor(lambda: RedisTakeOver(reactor, redis_settings(server), 86400.0))
    in_reactor(taking.start)
    yield taking
    in_reactor(taking.stop)


@pytest.fixture
def store(in_reactor: InReactor, server: RedisServer) -> Iterator[Subject]:
    """What serves from there."""
    subject = Subject("redis", in_reactor, lambda: RedisStore(StoreSettings(), redis_settings(server), reactor), None)
    yield subject
    subject.close()


def of(messages: list[tuple[int, float, bytes]], ends: float = 0) -> KeptLog:
    return KeptLog("k", messages[-1][0], 0, ends, messages, (), ())


def big_log(now: float, expire: float = 600) -> KeptLog:
    """Too much for a call."""
    return of([(mid_at(now - 100 + number), now + expire, b"%d" % number + BIG) for number in range(10)])


@pytest.mark.parametrize("how", ["insert", "take"])
def test_a_call_whose_answer_is_lost_doubles_nothing(
    in_reactor: InReactor, target: Any, store: Subject, how: str
) -> None:
    """It is made again then."""
    run = target._run

    async def twice(*call: Any) -> Any:
        await run(*call)
        return await run(*call)

    target._run = twice
    now = time.time()
    if how == "insert":
        store.push(body=b"new")
        old = [OldMessage(mid_at(now - 100 + number), int(now) + 600, b"%d" % number) for number in range(3)]
        assert in_reactor(target.insert, [OldLog("k", old)]) == 3
        assert store.bodies() == [b"0", b"1", b"2", b"new"]
    else:
        log = big_log(now)
        in_reactor(target.take, [log], now)
        assert store.read() == [(mid, body) for mid, _, body in log.messages]


def old_log(now: float, count: int, more: bytes = b"") -> OldLog:
    """What gopush-cluster kept."""
    return OldLog("k", [OldMessage(mid_at(now - 100) + 16 * n, int(now) + 600, b"%d" % n + more) for n in range(count)])


def test_what_a_log_keeps_is_not_read_for_what_comes_before_it(
    in_reactor: InReactor, server: RedisServer, target: Any, store: Subject
) -> None:
    """gopush serves meanwhile: a script over all of it stopped Redis for seconds."""
    in_reactor(store.store.stop)
    store._make = lambda: RedisStore(StoreSettings(5000), redis_settings(server), reactor)
    store.reopen()
    for _ in range(5):
        store.append(*[store.item(body=b"x" * 1000)] * 900)
    now, before = time.time(), {name: calls(server, name) for name in ("lrange", "lindex", "rpush")}
    old = [old_log(now, 20)._replace(key=key) for key in ("k", "other")]
    assert in_reactor(target.insert, old) == 40
    assert in_reactor(target.insert, old) == 0
    assert calls(server, "lrange") == before["lrange"]
    assert calls(server, "lindex") - before["lindex"] < 60
    assert [body for _, body in store.read()][:21] == [*(b"%d" % n for n in range(20)), b"x" * 1000]
    assert len(store.read()) == 4520
    store.append(*[store.item(body=b"y")] * 481)
    assert store.head().trimmed == old[0].messages[0].mid, "the oldest ones are trimmed first"


@pytest.mark.parametrize("own", [True, False], ids=["pushed to", "empty"])
def test_an_insert_that_was_cut_off_goes_on(in_reactor: InReactor, target: Any, store: Subject, own: bool) -> None:
    """Also where the log is pushed to before and after."""
    run, now, done = target._run, time.time(), []

    async def cut_off(*call: Any) -> Any:
        done.append(await run(*call))
        if len(done) == 1:
            store_pushes.append(await store.store.append([store.item(body=b"meanwhile")]))
        if len(done) == 2:
            raise UnavailableError("killed")
        return done[-1]

    store_pushes: list[Any] = []
    own_bodies = [b"before"] if own else []
    for body in own_bodies:
        store.push(body=body)
    old = old_log(now, 20, BIG)
    target._run = cut_off
    with pytest.raises(UnavailableError):
        in_reactor(target.insert, [old])
    target._run = run
    assert 0 < in_reactor(target.insert, [old]) < 20
    assert in_reactor(target.insert, [old]) == 0
    found = store.read()
    assert [body for _, body in found] == [*(one.body for one in old.messages), *own_bodies, b"meanwhile"]
    assert [mid for mid, _ in found] == sorted({mid for mid, _ in found})
    assert store.head().last == found[-1].mid == store_pushes[0][0].mid


def test_what_was_pushed_after_the_look_stays_behind_all_old(
    in_reactor: InReactor, target: Any, store: Subject
) -> None:
    """The clock of gopush-cluster was ahead: what is pushed meanwhile is below the places of old messages."""
    states, now = target._states, time.time()

    async def pushed_after(*call: Any) -> Any:
        found = await states(*call)
        if not pushes:
            pushes.append(await store.store.append([store.item(body=b"new")]))
        return found

    pushes: list[Any] = []
    target._states = pushed_after
    assert in_reactor(target.insert, [old_log(now + 1000, 3)]) == 3
    assert store.bodies() == [b"0", b"1", b"2", b"new"]
    assert store.head().last == pushes[0][0].mid


def test_late_ones_go_between_those_that_were_moved(in_reactor: InReactor, target: Any, store: Subject) -> None:
    """And a log of more old messages than a call looks at."""
    now = time.time()
    store.push(body=b"new")
    old = old_log(now, 4500)
    odd = old._replace(messages=old.messages[1::2])
    assert in_reactor(target.insert, [odd]) == 2250
    assert in_reactor(target.insert, [odd]) == 0
    assert in_reactor(target.insert, [old]) == 2250
    assert store.read() == [(one.mid, one.body) for one in old.messages] + store.read()[-1:]
    assert in_reactor(target.insert, [old]) == 0


def test_a_log_that_was_cut_off_is_taken_again_whatever_has_expired(
    in_reactor: InReactor, target: Any, store: Subject
) -> None:
    """Expired ones count there, and not at the source: five of ten may look like all."""
    run, now = target._run, time.time()
    messages = big_log(now).messages
    log = of([(mid, now + (1 if at < 5 else 600), body) for at, (mid, _, body) in enumerate(messages)])

    async def cut_off(link: Any, parts: Any, at: float) -> Any:
        await run(link, parts, at)
        raise UnavailableError("killed")

    target._run = cut_off
    with pytest.raises(UnavailableError):
        in_reactor(target.take, [log], now)
    target._run = run
    time.sleep(1.1)
    live = log._replace(messages=log.messages[5:])
    assert in_reactor(target.take, [live], time.time()) == [live]
    assert store.read() == [(mid, body) for mid, _, body in live.messages]
    assert in_reactor(target.take, [live], time.time()) == []


def test_a_log_that_is_there_gets_ids_and_tokens_alone(
    in_reactor: InReactor, server: RedisServer, target: Any, store: Subject
) -> None:
    """Each pass sent all messages again, wherever ids were remembered."""
    now = time.time()
    log = big_log(now)._replace(ids=[("a", 16, 0, now + 60)], tokens=[Token(b"digest", int(now) + 600)])
    assert in_reactor(target.take, [log], now) == [log]
    server.call("DEL", "gopush:i:k\0a", "gopush:t:k")
    before = calls(server, "rpush")
    assert in_reactor(target.take, [log], now) == [log._replace(last=0, messages=())]
    assert calls(server, "rpush") == before
    assert store.push(id="a") == Appended(RET_OK, 16, 0, True)
    assert len(store.tokens("k")) == 1
    assert store.read() == [(mid, body) for mid, _, body in log.messages]
    assert store.head().last == log.last


def test_a_head_lives_a_day_longer_than_what_is_pushed_after_a_move(
    in_reactor: InReactor, server: RedisServer, target: Any, store: Subject
) -> None:
    """Also where it came without messages, and would have been forgotten soon."""
    now = time.time()
    empty = KeptLog("k", mid_at(now - 85_000), 0, now + 600, (), (), ())
    in_reactor(target.take, [empty], now)
    assert 590 < server.call("TTL", "gopush:h:k") <= 601
    store.push(expire=300)
    assert server.call("TTL", "gopush:h:k") >= 86_400 + 300


def test_a_head_never_lives_shorter_for_a_move(
    in_reactor: InReactor, server: RedisServer, target: Any, store: Subject
) -> None:
    now = time.time()
    store.push(expire=0)
    lives = server.call("TTL", "gopush:h:k")
    in_reactor(target.take, [KeptLog("k", mid_at(now - 85_000), 0, now + 5, (), (), ())], now)
    assert server.call("TTL", "gopush:h:k") >= lives - 2


@pytest.mark.parametrize("how", ["take", "insert"])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("gopush:h:k", ("SET", "gopush:h:k", "x")),
        ("gopush:h:k", ("RPUSH", "gopush:h:k", "x")),
        ("gopush:h:k", ("SET", "gopush:h:k", b"abcdefghijklmnop")),
        ("gopush:h:k", ("SET", "gopush:h:k", struct.pack(">dd", 160, 0) + b"abcd")),
        ("gopush:h:k", ("SET", "gopush:h:k", b"abcdefghijklmnop" * 3)),
        ("gopush:m:k", ("SET", "gopush:m:k", "x")),
        ("gopush:m:k", ("RPUSH", "gopush:m:k", "somebody else's words")),
        ("gopush:m:k", ("RPUSH", "gopush:m:k", "x", struct.pack(">dd", 160, 9e9))),
    ],
)
def test_a_strange_name_at_the_target_is_named(
    in_reactor: InReactor, server: RedisServer, target: Any, how: str, name: str, command: Sequence[str]
) -> None:
    server.call(*command)
    now = time.time()
    old = OldLog("k", [OldMessage(mid_at(now), int(now) + 600, b"1")])
    call = (
        partial(target.insert, [old])
        if how == "insert"
        else partial(target.take, [of([(mid_at(now), now + 600, b"1")])], now)
    )
    with pytest.raises(
        UnavailableError, match=rf"^Redis \(--to\): STRANGE {name} is not as gopush writes it; what was"
    ):
        in_reactor(call)


def test_what_is_strange_behind_what_was_pushed_is_in_nobodys_way(
    in_reactor: InReactor, server: RedisServer, target: Any, store: Subject
) -> None:
    pushed = store.push()
    server.call("RPUSH", "gopush:m:k", "x")
    now = time.time()
    old = OldMessage(mid_at(now - 60), int(now) + 600, b"1")
    assert in_reactor(target.insert, [OldLog("k", [old])]) == 1
    assert [message.mid for message in store.read()] == [old.mid, pushed.mid]


@pytest.mark.parametrize("how", ["take", "insert"])
def test_a_target_that_is_gone_is_named(in_reactor: InReactor, server: RedisServer, target: Any, how: str) -> None:
    server.kill()
    now = time.time()
    old = OldLog("k", [OldMessage(mid_at(now), int(now) + 600, b"1")])
    call = (
        partial(target.insert, [old])
        if how == "insert"
        else partial(target.take, [of([(mid_at(now), now + 600, b"1")])], now)
    )
    with pytest.raises(UnavailableError, match=r"^Redis \(--to\): .*; what was moved so far stays: try again$"):
        in_reactor(call)
