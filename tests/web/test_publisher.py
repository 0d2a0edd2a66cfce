"""What is pushed together by callers that know nothing of each other."""

from __future__ import annotations

from typing import Any, cast

from gopush.model import Pushed
from gopush.routing.comets import Comets
from gopush.web.counters import WebCounters
from gopush.web.params import PublishRequest
from gopush.web.publisher import Publisher
from gopush.web.settings import HttpSettings
from tests.comet.harness import Clock
from tests.web.fakes import NOW, FakeComets, FakeMessages


def test_where_one_caller_fails_the_others_still_hear() -> None:
    clock = Clock()
    comets = cast(Comets, FakeComets(FakeMessages()))
    publisher = Publisher(comets, HttpSettings(), 4.0, lambda: NOW, clock, WebCounters())
    heard: list[Any] = []

    def fail(_: Pushed) -> None:
        raise ValueError("gone")

    for answered in (heard.append, fail, heard.append):
        publisher.push_soon(PublishRequest("k", b"1", 0, None), answered)
    clock.advance(0)
    assert [pushed.ret for pushed in heard] == [0, 0]


def test_what_came_first_is_pushed_first_however_it_came() -> None:
    """A push and a multiple one, pipelined on one connection."""
    clock = Clock()
    comets = FakeComets(FakeMessages())
    publisher = Publisher(cast(Comets, comets), HttpSettings(), 4.0, lambda: NOW, clock, WebCounters())
    publisher.push_soon(PublishRequest("k", b"1", 0, None), lambda _: None)
    publisher.push_to(["k"], b"2", 0, None, lambda _: True)
    clock.advance(0)
    assert [push.body for push in comets.pushes] == [b"1", b"2"]


def test_a_step_of_the_wall_clock_is_no_latency() -> None:
    clock, wall = Clock(), [NOW]
    comets = FakeComets(FakeMessages())
    publisher = Publisher(cast(Comets, comets), HttpSettings(), 4.0, lambda: wall[0], clock, WebCounters())
    comets.hold = True
    publisher.push_to(["k"], b"1", 0, None, lambda _: True)
    wall[0] += 3600
    clock.advance(0.25)
    comets.answer_all()
    assert publisher.latency.total == 0.25
