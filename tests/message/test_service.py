from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from gopush.errors import RET_INTERNAL, UnavailableError
from gopush.message.memory import MemoryStore
from gopush.message.rules import REFUSED
from gopush.message.service import StoreService
from gopush.message.store import StoreSettings
from gopush.model import Append, Appended, Push, Read, Token
from tests.fixtures import lines_logged
from tests.message.subject import FakeTime


class Broken:
    """A store that fails at everything."""

    shards = ()

    def __getattr__(self, name: str) -> Any:
        return lambda *_: fail(RuntimeError("the disk is on fire"))


def append(key: str, id: str = "", deadline: float = 2e9) -> Append:
    return Append(Push(key, b"1", 1, id, 60, deadline), 0)


def failure(call: Deferred[Any]) -> BaseException:
    failures: list[Any] = []
    call.addErrback(failures.append)
    error: BaseException = failures[0].value
    return error


def test_it_counts() -> None:
    message = StoreService(MemoryStore(StoreSettings(), now=FakeTime()), Clock())
    message.append([append("k", "a"), append("k", "a"), append("k", deadline=0), append("k")])
    message.append([append("k")])
    message.read([Read("k", 0, 9), Read("x", 0, 9)])
    message.heads(["a", "b", "c"])
    message.delete("k")
    counters = message.counters
    assert (counters.saves, counters.repeats, counters.refused, counters.batches) == (3, 1, 1, 2)
    assert (counters.reads, counters.read_messages, counters.heads, counters.deletes) == (2, 3, 3, 1)


def test_whatever_the_store_fails_with_is_unavailable() -> None:
    broken: Any = Broken()
    message = StoreService(broken, Clock())
    token = Token(b"d", 1)
    for call in (
        message.append([append("k")]),
        message.read([Read("k", 0, 1)]),
        message.heads(["k"]),
        message.delete("k"),
        message.create_token("k", token),
        message.revoke_token("k", b"d"),
        message.tokens("k"),
        message.check_token("k", b"d"),
        message.ping(),
    ):
        error = failure(call)
        assert isinstance(error, UnavailableError)
        assert "the disk is on fire" in str(error)


def test_a_store_that_answers_no_ping_is_named_before_who_asks_gives_up() -> None:
    clock = Clock()
    silent: Any = SimpleNamespace(name="Redis node1", numbers={}, ping=Deferred)
    message = StoreService(silent, clock, timeout=0.5)
    pinged, came = message.ping(), list[Failure]()
    pinged.addErrback(came.append)
    clock.advance(0.39)
    assert (came, message.under_way) == ([], 1)
    for _ in range(2):
        clock.advance(0.02)
    (why,) = came
    assert why.check(UnavailableError)
    assert why.getErrorMessage() == "store: Redis node1: no answer within 0.4 s"
    assert message.under_way == 0


def test_what_expired_is_purged_as_time_goes_by() -> None:
    now, clock = FakeTime(), Clock()
    store = MemoryStore(StoreSettings(head_life=5), now=now)
    message = StoreService(store, clock)
    Deferred.fromCoroutine(message.start())
    message.append([append(f"key{n}", "id") for n in range(3000)])
    store.create_token("other", Token(b"d", int(now()) + 5))
    now.seconds += 100
    for _ in range(10):
        clock.advance(1)
    assert (store.logs, store.token_sets) == ({}, {})
    Deferred.fromCoroutine(message.stop())
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("storage", "absent"), [("memory", ("sqlite3", "txredisapi")), ("sqlite", ("txredisapi",)), ("redis", ("sqlite3",))]
)
def test_only_the_backend_that_is_named_is_imported(storage: str, absent: tuple[str, ...]) -> None:
    script = f"""
import sys
from twisted.internet import reactor
from gopush.message.settings import MessageSettings
from gopush.message.settings import open_store
open_store(MessageSettings(storage={storage!r}), reactor)
print([name for name in {absent!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "[]\n", done.stderr


class HeldStore:
    """A store whose answers the test gives."""

    def __init__(self) -> None:
        self.numbers: dict[str, Any] = {}
        self.answer: Deferred[list[Appended]] = Deferred()

    def append(self, _: object) -> Deferred[list[Appended]]:
        self.answer = Deferred()
        return self.answer


def test_a_store_that_fails_or_is_slow_is_no_wrong_clock() -> None:
    """Its refusals come past the deadline, and so do pushes that a comet tries again; "run NTP" would mislead."""
    now = FakeTime()
    held: Any = HeldStore()
    message = StoreService(held, Clock(), now)
    with lines_logged(lambda line: line.startswith("pushes: ")) as lines:
        for answer in (REFUSED, Appended(RET_INTERNAL, 0, 0, False)):
            message.append([append("k", deadline=now() + 1)])
            now.seconds += 6
            held.answer.callback([answer])
        assert (message.counters.refused, message.counters.late) == (2, 1)
        assert lines == []


def test_pushes_that_come_after_their_deadline_are_said_once_and_counted() -> None:
    """A web node whose clock is behind: every push is refused, and nothing else shows why."""
    now, clock = FakeTime(), Clock()
    lines: list[str] = []

    def observe(event: Any) -> None:
        if (line := formatEvent(event)).startswith("pushes: "):
            lines.append(line)

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    try:
        message = StoreService(MemoryStore(StoreSettings(), now=now), clock, now)
        Deferred.fromCoroutine(message.start())
        for _ in range(20):
            message.append([append("k", deadline=now() - 6)])
            clock.advance(1)
        assert len(lines) == 1
        assert "6.0 s past their deadline" in lines[0]
        assert message.counters.late == 20
        clock.advance(11)
        clock.advance(1)
        assert lines[1:] == ["pushes: all is well again"]
        Deferred.fromCoroutine(message.stop())
    finally:
        globalLogPublisher.removeObserver(observer)
