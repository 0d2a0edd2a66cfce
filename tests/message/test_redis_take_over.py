"""What `gopush migrate` asks of Redis, where calls go wrong halfway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gopush.errors import UnavailableError
from gopush.message.original import OldLog, OldMessage
from gopush.message.redis.store import RedisStore
from gopush.message.redis.take_over import RedisTakeOver
from gopush.message.rules import KeptLog
from gopush.message.store import StoreSettings
from gopush.model import mid_at
from tests.conftest import InReactor, reactor
from tests.message.conftest import redis_settings
from tests.message.subject import Subject
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
        assert in_reactor(target.insert, [OldLog("k", old)], now) == 3
        assert store.bodies() == [b"0", b"1", b"2", b"new"]
    else:
        log = big_log(now)
        in_reactor(target.take, [log], now)
        assert store.read() == [(mid, body) for mid, _, body in log.messages]


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
def test_a_target_that_is_gone_is_named(in_reactor: InReactor, server: RedisServer, target: Any, how: str) -> None:
    server.kill()
    now = time.time()
    old = OldLog("k", [OldMessage(mid_at(now), int(now) + 600, b"1")])
    log = old if how == "insert" else of([(mid_at(now), now + 600, b"1")])
    with pytest.raises(UnavailableError, match=r"^Redis \(--to\): .*; what was moved so far stays: try again$"):
        in_reactor(getattr(target, how), [log], now)
