"""`GET /health` (protocol.md, section 10)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock

from gopush.errors import UnavailableError
from gopush.net.http.request import Request, Response
from gopush.net.http.routes import Route
from gopush.stats.resource import CHECK_SECONDS, Health, Statistics
from tests.comet.harness import Clock, result
from tests.http.ways import Transport


@dataclass
class StatSettings:
    """None."""


READY = {"alive": True, "ready": True}


class World:
    """A process whose check ends as `outcome` says; None: never."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.checks = 0
        self.outcome: Deferred[None] | None = succeed(None)
        self.health = Health(self.clock, self._check)
        route = self.health.routes()["/health"]["GET"]
        assert isinstance(route, Route)
        self._handler: Any = route.handler

    def _check(self) -> Deferred[None]:
        self.checks += 1
        return Deferred() if self.outcome is None else self.outcome

    def ask(self) -> list[Any]:
        """The answer, once it is there: status and what was said."""
        found = self._handler(Request(b"GET", b"/health"))
        return result((found if isinstance(found, Deferred) else succeed(found)).addCallback(read))


def read(response: Response) -> tuple[int, Any]:
    assert response.content_type == "application/json;charset=utf-8"
    return response.status, json.loads(response.body)


def test_a_process_whose_check_answers_is_ready() -> None:
    assert World().ask() == [(200, READY)]


def test_a_process_whose_check_fails_says_why() -> None:
    world = World()
    world.outcome = fail(UnavailableError("Redis is away"))
    assert world.ask() == [(503, {"alive": True, "ready": False, "reason": "Redis is away"})]


def test_a_check_is_given_up_after_a_second() -> None:
    world = World()
    world.outcome = None
    answer = world.ask()
    world.clock.advance(CHECK_SECONDS / 2)
    assert answer == []
    world.clock.advance(CHECK_SECONDS / 2)
    world.clock.advance(0)  # the last look (gopush.net.clock)
    assert answer == [(503, {"alive": True, "ready": False, "reason": "no answer within 1 s"})]


def test_however_many_ask_one_check_a_second_is_made() -> None:
    world = World()
    world.outcome = None
    answers = [world.ask() for _ in range(3)]
    world.clock.advance(CHECK_SECONDS)
    world.clock.advance(0)
    assert world.checks == 1
    assert [status for answer in answers for status, _ in answer] == [503] * 3
    world.outcome = succeed(None)
    assert world.ask()[0][0] == 503
    world.clock.advance(CHECK_SECONDS)
    assert world.ask() == [(200, READY)]
    assert world.checks == 2


def test_metrics_tell_whether_the_process_is_ready_from_the_first_time_on() -> None:
    world = World()
    statistics = Statistics(StatSettings())
    statistics.port(MemoryReactorClock(), (), world.health)
    handler = world.health.before(statistics.metrics.response)

    def ready() -> bytes:
        (response,) = result(handler(Request(b"GET", b"/metrics")))  # type: ignore[arg-type]
        (line,) = re.findall(rb"^gopush_ready .*$", response.body, re.MULTILINE)
        return bytes(line)

    assert ready() == b"gopush_ready 1.0"
    world.outcome = fail(UnavailableError("Redis is away"))
    world.clock.advance(CHECK_SECONDS)
    assert ready() == b"gopush_ready 0.0"
    world.outcome = succeed(None)
    world.clock.advance(CHECK_SECONDS)
    assert ready() == b"gopush_ready 1.0"


def test_all_who_ask_for_metrics_in_one_turn_share_the_answer() -> None:
    """To gather the numbers takes milliseconds, and strangers may ask for them 64 times at once."""
    world = World()
    statistics = Statistics(StatSettings())
    gathered: list[float] = []

    def number() -> float:
        gathered.append(world.clock.seconds())
        return 1.0

    statistics.metrics.gauge("number", "one", number)
    listeners: Any = statistics.port(world.clock, (), world.health)
    crowd = [(listeners._factory.buildProtocol(None), Transport()) for _ in range(9)]  # type: ignore[no-untyped-call]
    for channel, transport in crowd:
        channel.makeConnection(transport)
    gathered.clear()  # the registry asks once for the name
    for turn in (1, 2):
        for channel, _ in crowd:
            channel.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert len(gathered) == turn
        answers = [transport.value() for _, transport in crowd]  # type: ignore[no-untyped-call]
        assert all(answer.count(b"gopush_number 1.0") == turn for answer in answers)
        world.clock.advance(0)
