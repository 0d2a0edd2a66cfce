"""What happens too often for a line each time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from gopush.comet import node as comet_node
from gopush.comet.counters import CometCounters
from gopush.stats.summary import TELL_SECONDS, PeriodicSummary
from gopush.web import node as web_node
from gopush.web.counters import WebCounters


@pytest.fixture
def reported() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def test_what_has_grown_is_reported_once_with_its_number(reported: list[str]) -> None:
    clock, counters = Clock(), CometCounters(slow_closed=7)
    summary = PeriodicSummary(clock, counters, {"slow_closed": "were slow", "gaps": "were gaps"})
    summary.startService()
    clock.advance(TELL_SECONDS)
    assert reported == []
    counters.slow_closed += 3
    clock.advance(TELL_SECONDS)
    clock.advance(TELL_SECONDS)
    assert reported == ["3 were slow"]
    counters.gaps += 1
    summary.stopService()
    assert reported == ["3 were slow", "1 were gaps"]
    assert clock.getDelayedCalls() == []


def test_all_that_is_reported_is_counted() -> None:
    for counters, meanings in ((CometCounters, comet_node.SUMMARIZED), (WebCounters, web_node.SUMMARIZED)):
        assert set(meanings) <= {field.name for field in dataclasses.fields(counters)}
