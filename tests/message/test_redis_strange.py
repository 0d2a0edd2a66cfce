"""Names under our prefix that somebody else has written: their keys are out of use, and no others."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gopush.errors import RET_OK, UnavailableError
from gopush.message import store as message_store
from gopush.message.redis.store import RedisStore
from gopush.message.rules import REFUSED
from gopush.message.store import StoreSettings
from gopush.model import Read, TokenState
from tests.conftest import InReactor, reactor
from tests.fixtures import lines_logged
from tests.message.conftest import redis_settings
from tests.message.subject import Subject
from tests.servers.redis import RedisServer

Spoil = Callable[[RedisServer], object]

LONG = b"x" * 64
"""No time, as a double: far too large."""

UUID = b"3f2504e0-4f89-11d3-0a0c-0305e82c3301"
HEX = b"30000000a00000003000000000000000"
"""Small numbers, as doubles, but no mids."""

NAN = struct.pack(">dddd", 16, float("nan"), 9e9, 9e9)

STRANGE: dict[str, tuple[str, Spoil]] = {
    "m: a string": ("m:", lambda redis: redis.call("SET", "gopush:m:bad", "x")),
    "h: a list": ("h:", lambda redis: redis.call("RPUSH", "gopush:h:bad", "x")),
    "h: short": ("h:", lambda redis: redis.call("SET", "gopush:h:bad", "x")),
    "h: long": ("h:", lambda redis: redis.call("SET", "gopush:h:bad", LONG)),
    "h: a UUID": ("h:", lambda redis: redis.call("SET", "gopush:h:bad", UUID)),
    "h: hexadecimal": ("h:", lambda redis: redis.call("SET", "gopush:h:bad", HEX)),
    "h: not a number": ("h:", lambda redis: redis.call("SET", "gopush:h:bad", NAN)),
    "i: a list": ("i:", lambda redis: redis.call("RPUSH", "gopush:i:bad\0other", "x")),
    "i: short": ("i:", lambda redis: redis.call("SET", "gopush:i:bad\0other", "x")),
    "i: long": ("i:", lambda redis: redis.call("SET", "gopush:i:bad\0other", LONG)),
    "i: a UUID": ("i:", lambda redis: redis.call("SET", "gopush:i:bad\0other", UUID)),
    "o: a list": ("o:", lambda redis: redis.call("RPUSH", "gopush:o:other", "x")),
    "o: short": ("o:", lambda redis: redis.call("SET", "gopush:o:other", "x")),
    "o: long": ("o:", lambda redis: redis.call("SET", "gopush:o:other", LONG)),
    "o: torn": ("o:", lambda redis: redis.call("SET", "gopush:o:other", b"bad\0" + struct.pack(">dd", 16, 9e9))),
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
def subject(in_reactor: InReactor, server: RedisServer) -> Iterator[Subject]:
    opened = Subject("redis", in_reactor, lambda: RedisStore(StoreSettings(3), redis_settings(server), reactor), None)
    yield opened
    opened.close()


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_refuses_its_own_append_alone(
    subject: Subject, server: RedisServer, name: str, first: bool
) -> None:
    """What raised in the script left good keys written, answered 65535, and unknown at their repeat."""
    kind, spoil = STRANGE[name]
    spoil(server)
    good = [subject.item(key, id="own", dedupe=0) for key in ("good", "other")]
    bad = subject.item("bad", id="other", dedupe=60 if kind == "i:" else 0)
    with lines_logged(lambda line: " a gopush:" in line) as lines:
        answers = subject.append(*([bad, *good] if first else [*good, bad]))
        refused = answers.pop(0 if first else -1)
        assert [answer.ret for answer in answers] == [RET_OK] * 2
        assert refused is REFUSED
        assert subject.append(*good) == [answer._replace(repeat=True) for answer in answers]
        assert subject.append(bad) == [REFUSED]
    assert [[one.mid for one in subject.read(key)] for key in ("good", "other")] == [[one.mid] for one in answers]
    assert len(lines) == 1, "one line a minute"
    assert lines[0].startswith(f"Redis node1: a gopush:{kind}… is not as gopush writes it: ")
    (numbers,) = subject.store.numbers.values()
    assert numbers.counters.failed == 0


def test_it_is_said_again_after_a_while(subject: Subject, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_store, "STRANGE_SECONDS", 0.0)
    server.call("SET", "gopush:m:bad", "x")
    with lines_logged(lambda line: " a gopush:" in line) as lines:
        subject.append(subject.item("bad"), subject.item("bad"))
        subject.append(subject.item("bad"))
    assert len(lines) == 2


@pytest.mark.parametrize("name", [name for name in STRANGE if name[0] in "mh"])
def test_a_strange_name_hides_no_other_log(subject: Subject, server: RedisServer, name: str) -> None:
    kind, spoil = STRANGE[name]
    subject.append(subject.item("good"), subject.item("bad"))
    server.call("DEL", f"gopush:{kind}bad")
    spoil(server)
    pages: list[Any] = subject.reads([Read(key, 0, 9) for key in ("good", "bad", "none")])
    good, bad, none = pages
    assert (len(good.messages), bad, none.messages) == (1, None, [])
    assert subject.heads(["good", "bad"]) == [good.head, None if kind == "h:" else subject.head("bad")]


def test_messages_of_nobody_in_a_list_are_dropped(subject: Subject, server: RedisServer) -> None:
    """The list has the right type: what is in it is met when it is trimmed, after others were written."""
    for member in (b"x", LONG.replace(b"x", b"\xff"), b""):
        server.call("RPUSH", "gopush:m:k", member)
    answers = subject.append(subject.item("good"), subject.item(), subject.item(), subject.item())
    assert [answer.ret for answer in answers] == [RET_OK] * 4
    assert [message.mid for message in subject.read()] == [answer.mid for answer in answers[1:]]


ASKED_FOR_TOKENS = {name: spoil for name, spoil in STRANGE.items() if name[0] in "mh"} | {
    "t: a string": ("t:", lambda redis: redis.call("SET", "gopush:t:bad", "x")),
    "m: short": ("", lambda redis: redis.call("RPUSH", "gopush:m:bad", "x")),
}


@pytest.mark.parametrize("name", ASKED_FOR_TOKENS)
def test_a_strange_name_refuses_tokens_of_its_own_key_alone(subject: Subject, server: RedisServer, name: str) -> None:
    kind, spoil = ASKED_FOR_TOKENS[name]
    spoil(server)
    if kind == "h:":  # it is asked only where many messages have expired
        for _ in range(256):
            server.call("RPUSH", "gopush:m:bad", struct.pack(">dd", 16, 1))
    subject.push("good")
    with lines_logged(lambda line: " a gopush:" in line) as lines:
        found = [subject.check_token(key, b"digest") for key in ("bad", "good")]
    assert found == [TokenState(False, False), TokenState(True, False)]
    assert len(lines) == bool(kind)
    assert all(line.startswith(f"Redis node1: a gopush:{kind}… is not as gopush writes it: ") for line in lines)


def test_a_strange_store_is_named_and_takes_pushes(
    subject: Subject, server: RedisServer, in_reactor: InReactor
) -> None:
    server.call("DEL", "gopush:store")
    server.call("RPUSH", "gopush:store", "x")
    with pytest.raises(UnavailableError, match=r"^Redis node1: STRANGE gopush:store is not as gopush writes it$"):
        in_reactor(subject.store.ping)
    assert subject.push().ret == RET_OK


def test_a_push_that_is_not_kept_needs_no_list(subject: Subject, server: RedisServer) -> None:
    server.call("SET", "gopush:m:k", "x")
    refused, unkept, again = subject.append(subject.item(), subject.item(expire=0), subject.item())
    assert (refused, again) == (REFUSED, REFUSED)
    assert (unkept.ret, subject.head().last) == (RET_OK, unkept.mid)


@pytest.mark.parametrize("name", ["m: a string", "h: a list", "h: short"])
def test_a_delete_of_a_strange_key_ends(subject: Subject, server: RedisServer, name: str) -> None:
    STRANGE[name][1](server)
    subject.delete("bad")
    assert server.call("EXISTS", "gopush:m:bad") == 0


def test_nothing_is_written_for_a_strange_key(subject: Subject, server: RedisServer) -> None:
    server.call("SET", "gopush:m:bad", "x")
    subject.append(subject.item("bad", id="other"), subject.item("bad", id="own", dedupe=0))
    assert sorted(server.call("KEYS", "*")) == [b"gopush:m:bad", b"gopush:store"]
