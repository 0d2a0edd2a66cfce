"""Pushes that are late for the store alone: the clock of this machine is behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from unittest.mock import patch

import pytest
from twisted.logger import capturedLogs, formatEvent

from gopush.errors import RET_INTERNAL, RET_OK, UnavailableError
from gopush.model import LATE, OnPushed, Push, Pushed
from gopush.web.lateness import LATE_SECONDS, Lateness
from tests.web.conftest import World

TOO_LATE, STORED, REFUSED = Pushed(RET_INTERNAL, LATE), Pushed(RET_OK, 16), Pushed(RET_INTERNAL, 0)


def is_ready(lateness: Lateness, now: float) -> bool:
    try:
        lateness.check(now)
    except UnavailableError:
        return False
    return True


def test_where_all_pushes_are_late_it_is_not_ready_and_the_log_says_so_once() -> None:
    lateness = Lateness(4.0)
    with capturedLogs() as logged:
        for now in (1.0, 2.0, 3.0):
            lateness.answered(TOO_LATE, now - 0.1, now)
            assert not is_ready(lateness, now)
        lateness.answered(REFUSED, 3.0, 3.1)
        assert not is_ready(lateness, 2.9 + LATE_SECONDS)
        assert is_ready(lateness, 3.0 + LATE_SECONDS)
        lateness.answered(STORED, 20.0, 20.1)
    assert [formatEvent(event) for event in logged] == [
        "pushes: refused: the store has them past their deadline: this machine's clock is behind the store's (run NTP)",
        "pushes: they come to the store in time again",
    ]


def test_where_some_come_in_time_it_is_ready_and_the_log_does_not_flap() -> None:
    """Of several Redis servers one has a clock that is ahead."""
    lateness = Lateness(4.0)
    with capturedLogs() as logged:
        for now in (1.0, 2.0, 3.0):
            lateness.answered(TOO_LATE, now, now)
            lateness.answered(STORED, now, now)
            assert is_ready(lateness, now)
    assert len(logged) == 1


@pytest.mark.parametrize(("answer", "took"), [(TOO_LATE, 2.0), (TOO_LATE, 5.0), (REFUSED, 0.1)])
def test_what_took_long_or_was_refused_otherwise_tells_of_no_clock(answer: Pushed, took: float) -> None:
    lateness = Lateness(4.0)
    with capturedLogs() as logged:
        lateness.answered(answer, 10.0, 10.0 + took)
    assert is_ready(lateness, 10.0 + took)
    assert not logged


def test_health_tells_of_a_clock_that_is_behind(world: World) -> None:
    def push(pushes: Sequence[Push], answered: OnPushed) -> None:
        answered(range(len(pushes)), [TOO_LATE] * len(pushes))

    with patch.object(world.comets, "push", push):
        assert world.post("/1/admin/push/private", "1", key="k", expire="9").body == b'{"ret":65535}'
    answer = world.get("/health")
    assert answer.status == 503
    assert "clock is behind" in json.loads(answer.body)["reason"]
