"""protocol.md, section 10: `/1/msg/get` with `wait` answers as soon as there is something after the cursor."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from gopush.errors import UnavailableError
from tests.event_source import wait_for
from tests.fixtures import Logged
from tests.http.client import Client
from tests.web.whole import MakeWhole, Whole, make_whole, whole

__all__ = ["make_whole", "whole"]


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name[:80]}-{time.monotonic_ns()}"


class Waiting:
    """A request that waits, in a thread."""

    def __init__(self, whole: Whole, target: str) -> None:
        self.took = 0.0
        self._body = b""
        self._whole = whole
        self._target = target
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def answer(self) -> Any:
        self._thread.join(70)
        assert not self._thread.is_alive()
        return json.loads(self._body)

    def mids(self) -> list[int]:
        answer = self.answer()
        assert answer["ret"] == 0
        return [message["mid"] for message in answer.get("data", {"msgs": []})["msgs"]]

    def _run(self) -> None:
        started = time.monotonic()
        self._body = self._whole.get(self._target).body
        self.took = time.monotonic() - started


def target(key: str, after: int, seconds: int | str, more: str = "") -> str:
    return f"/1/msg/get?k={key}&m={after}&wait={seconds}{more}"


def subscribed(whole: Whole, key: str, count: int = 1) -> None:
    wait_for(lambda: whole.subscribers(key) == count)


def reads(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the store from now on."""
    asked: list[str] = []
    messages = whole.node._messages
    for name in ("read", "head"):
        call: Callable[..., Any] = getattr(messages, name)

        def count(*args: Any, name: str = name, call: Callable[..., Any] = call) -> Any:
            asked.append(name)
            return call(*args)

        monkeypatch.setattr(messages, name, count)
    return asked


def test_what_is_there_is_answered_at_once(whole: Whole, key: str) -> None:
    mids = [whole.push(key, b"%d" % number) for number in range(3)]
    waiting = Waiting(whole, target(key, mids[0], 30))
    assert waiting.mids() == mids[1:]
    assert waiting.took < 10
    assert whole.get(target(key, mids[0], 30)).body == whole.get(f"/1/msg/get?k={key}&m={mids[0]}").body
    called = whole.get(target(key, mids[1], 30, "&cb=f")).body
    assert called == b'f({"ret":0,"data":{"msgs":[{"msg":2,"mid":%d,"gid":0}]}})' % mids[2]


@pytest.mark.parametrize("expire", [600, 0])
def test_what_comes_is_answered_as_it_comes(whole: Whole, key: str, expire: int) -> None:
    seen = whole.push(key, b"0")
    waiting = Waiting(whole, target(key, seen, 30))
    subscribed(whole, key)
    time.sleep(0.2)
    mid = whole.push(key, b'{"a":\n1}', expire)
    answer = waiting.answer()
    assert answer == {"ret": 0, "data": {"msgs": [{"msg": {"a": 1}, "mid": mid, "gid": 0}]}}
    assert waiting.took < 15
    subscribed(whole, key, 0)


def test_nothing_comes(whole: Whole, key: str) -> None:
    waiting = Waiting(whole, target(key, 0, 1))
    assert waiting.answer() == {"ret": 0}
    assert waiting.took >= 1
    assert whole.get(target(key, 0, 0)).body == b'{"ret":0}'


@pytest.mark.parametrize("seconds", ["", "x", "-1", "61", "1.5", "+1"])
def test_what_is_no_time(whole: Whole, key: str, seconds: str) -> None:
    assert json.loads(whole.get(target(key, 0, seconds)).body)["ret"] == 65534


def test_nobody_asks_the_store_while_somebody_waits(
    make_whole: MakeWhole, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does who comes back with the same cursor: it goes on waiting where it was."""
    whole = make_whole()
    asked = reads(whole, monkeypatch)
    assert Waiting(whole, target(key, 0, 1)).answer() == {"ret": 0}
    assert asked.count("read") == 1  # heads are those of the sweep, which looks at every channel
    for _ in range(2):
        assert Waiting(whole, target(key, 0, 1)).answer() == {"ret": 0}
    assert asked.count("read") == 1
    waiting = Waiting(whole, target(key, 0, 30))
    mid = whole.push(key, b"1")
    assert waiting.mids() == [mid]
    wait_for(lambda: not whole.node._web.polls._parked)
    subscribed(whole, key, 0)


def test_what_comes_between_two_polls_is_in_the_second(whole: Whole, key: str) -> None:
    assert Waiting(whole, target(key, 0, 1)).answer() == {"ret": 0}
    subscribed(whole, key)
    mid = whole.push(key, b"1")
    subscribed(whole, key, 0)
    assert Waiting(whole, target(key, 0, 30)).mids() == [mid]


def test_what_comes_while_the_log_is_read_is_not_lost(
    make_whole: MakeWhole, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It subscribes, *then* reads: whatever the log shows by then, nothing comes in between unseen."""
    whole = make_whole()
    read = whole.node._messages.read
    pushed: list[int] = []

    def late(*args: Any) -> Any:
        """The log as it was before a push that is delivered before the answer comes."""
        page = read(*args)

        def push(found: Any) -> Any:
            from twisted.internet.threads import deferToThread

            return deferToThread(lambda: pushed.append(whole.push(key, b"1", expire=0))).addCallback(lambda _: found)

        return page.addCallback(push)

    monkeypatch.setattr(whole.node._messages, "read", late)
    assert Waiting(whole, target(key, 0, 30)).mids() == pushed != []


def test_tokens(make_whole: MakeWhole, key: str) -> None:
    whole = make_whole({"auth": True}, auth=True)
    token = whole.token(key)
    assert json.loads(whole.get(target(key, 0, 30, "&t=wrong")).body)["ret"] == 65534
    waiting = Waiting(whole, target(key, 0, 30, f"&t={token}"))
    subscribed(whole, key)
    mid = whole.push(key, b"1")
    assert waiting.mids() == [mid]


def test_a_store_that_is_away(make_whole: MakeWhole, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_whole()
    monkeypatch.setattr(whole.node._messages, "read", lambda *_: fail(UnavailableError("away")))
    assert json.loads(whole.get(target(key, 0, 30)).body)["ret"] == 65535


def test_one_too_many_waits_without_a_place(make_whole: MakeWhole, key: str) -> None:
    """protocol.md, section 1: -l. It reads at the end at the latest."""
    whole = make_whole(max_subscribers=1)
    with whole.stream(key).began():
        waiting = Waiting(whole, target(key, 0, 2))
        time.sleep(0.5)
        mid = whole.push(key, b"1")
        assert waiting.mids() == [mid]


def test_who_leaves_waits_no_more(whole: Whole, key: str) -> None:
    with Client(whole.ports["http"]) as client:
        client.send(f"GET {target(key, 0, 60)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        subscribed(whole, key)
    subscribed(whole, key, 0)
    with Client(whole.ports["http"]) as client:
        client.send(f"GET {target(key, 0, 60)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        subscribed(whole, key)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().body == b'{"ret":0}'
    subscribed(whole, key, 0)
    counters = whole.counters()
    wait_for(lambda: counters.polls_opened == counters.polls_closed)


@pytest.mark.parametrize("more", [b"\r", b"GET /1/time/get HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["byte", "request"])
def test_who_leaves_after_sending_more_waits_no_more(whole: Whole, key: str, more: bytes) -> None:
    with Client(whole.ports["http"]) as client:
        client.send(f"GET {target(key, 0, 60)} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + more)
        subscribed(whole, key)
    wait_for(lambda: not whole.subscribers(key), 30)


def test_what_follows_is_answered_after_it_however_much_that_is(whole: Whole, key: str) -> None:
    more = b"GET /1/time/get HTTP/1.1\r\nHost: a\r\n\r\n"
    with Client(whole.ports["http"]) as client:
        client.send(f"GET {target(key, 0, 2)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        subscribed(whole, key)
        for _ in range(20):
            client.send(more * 100)
            time.sleep(0.01)
        (channel,) = whole.node._web.public.channels
        assert len(channel.inbox) <= 8 << 10
        assert client.answer().body == b'{"ret":0}'
        assert {client.answer().status for _ in range(2000)} == {200}


class Delayed:
    """A call of the store whose answers come when the test says so."""

    def __init__(self, whole: Whole, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._in_reactor = whole.in_reactor
        self._coming: list[Deferred[Any]] = []
        call: Callable[..., Deferred[Any]] = getattr(whole.node._messages, name)

        def late(*args: Any) -> Deferred[Any]:
            self._coming.append(Deferred())
            return self._coming[-1].addCallback(lambda _: call(*args))

        monkeypatch.setattr(whole.node._messages, name, late)

    def called(self) -> None:
        wait_for(lambda: len(self._coming) == 1)

    def answer(self) -> None:
        self._in_reactor(self._coming.pop().callback, None)


@pytest.mark.parametrize(("call", "wait"), [("read", 0), ("check_token", 0), ("check_token", 30)])
@pytest.mark.parametrize("good", [True, False])
def test_who_leaves_breaks_nothing_off(
    make_whole: MakeWhole, key: str, monkeypatch: pytest.MonkeyPatch, logged: Logged, call: str, wait: int, good: bool
) -> None:
    """A client that has ended its side gets its answer, and nobody hears of one that is gone."""
    whole = make_whole({"auth": call == "check_token"})
    mid = whole.push(key, b"1")
    token = whole.token(key) if good else "wrong"
    request = f"GET {target(key, 0, wait, f'&t={token}')} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    delayed = Delayed(whole, monkeypatch, call)
    with Client(whole.ports["http"]) as client:
        client.send(request)
        delayed.called()
        client.socket.shutdown(socket.SHUT_WR)
        assert client.silent()
        delayed.answer()
        answer = json.loads(client.answer().body)
    if call == "check_token" and not good:
        assert answer == {"ret": 65534}
    elif wait:
        assert answer == {"ret": 0}
    else:
        assert answer == {"ret": 0, "data": {"msgs": [{"msg": 1, "mid": mid, "gid": 0}]}}
    with Client(whole.ports["http"]) as client:
        client.send(request)
        delayed.called()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: not whole.node._web.public.channels)
    delayed.answer()
    subscribed(whole, key, 0)
    assert (logged.lines(), logged.tracebacks()) == ([], [])
    assert whole.counters().polls_opened == whole.counters().polls_closed


def test_leaving(make_whole: MakeWhole, key: str) -> None:
    """At SIGTERM all that wait are answered, with nothing."""
    whole = make_whole()
    waiting = [Waiting(whole, target(f"{key}{number}", 0, 60)) for number in range(5)]
    for number in range(5):
        subscribed(whole, f"{key}{number}")
    whole.close()
    assert [one.answer() for one in waiting] == [{"ret": 0}] * 5
    assert all(one.took < 30 for one in waiting)


def test_a_log_of_many_pages_is_read_page_by_page(make_whole: MakeWhole, key: str) -> None:
    from gopush.message.store import StoreSettings

    whole = make_whole(store=StoreSettings(store=600))
    mids = [whole.push(key, b"%d" % number) for number in range(600)]
    assert Waiting(whole, target(key, 0, 30)).mids() == mids
