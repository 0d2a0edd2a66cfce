"""What is pushed together by callers that know nothing of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gopush.model import Pushed
from gopush.web.params import PublishRequest
from gopush.web.peers import WebCounters
from gopush.web.publisher import Publisher
from gopush.web.settings import HttpSettings
from tests.web.fakes import NOW, FakeComets, FakeMessages


def test_where_one_caller_fails_the_others_still_hear() -> None:
    turn: list[Callable[[], None]] = []
    publisher = Publisher(FakeComets(FakeMessages()), HttpSettings(), 4.0, lambda: NOW, turn.append, WebCounters())
    heard: list[Any] = []

    def fail(_: Pushed) -> None:
        raise ValueError("gone")

    for answered in (heard.append, fail, heard.append):
        publisher.push_soon(PublishRequest("k", b"1", 0, None), answered)
    (gathered,) = turn
    gathered()
    assert [pushed.ret for pushed in heard] == [0, 0]
