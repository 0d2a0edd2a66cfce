"""Pushes that are late for the store alone: one of the two clocks is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import pytest
from twisted.logger import capturedLogs, formatEvent

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.model import LATE, OnPushed, Push, Pushed
from gopush.web.lateness import CALM_SECONDS, Lateness
from tests.web.conftest import World

TOO_LATE, STORED, REFUSED = Pushed(RET_INTERNAL, LATE), Pushed(RET_OK, 16), Pushed(RET_INTERNAL, 0)


def test_where_pushes_are_late_the_log_says_so_once_and_when_it_is_over() -> None:
    lateness = Lateness(4.0)
    with capturedLogs() as logged:
        for begin in (0.0, 100.0):
            for now in (begin + 1.0, begin + 2.0, begin + 3.0):
                lateness.answered(TOO_LATE, now - 0.1, now)
            lateness.answered(REFUSED, begin + 20.0, begin + 20.1)
            lateness.answered(STORED, begin + 20.0, begin + 20.1)
    assert [formatEvent(event) for event in logged] == 2 * [
        "pushes: refused: the store has them past their deadline: one of the two clocks is wrong, this machine's or "
        "the store's (run NTP)",
        "pushes: they come to the store in time again",
    ]


def test_where_some_come_in_time_the_log_does_not_flap() -> None:
    """Of several Redis servers one has a clock that is ahead."""
    lateness = Lateness(4.0)
    with capturedLogs() as logged:
        for now in (1.0, 2.0, 3.0):
            lateness.answered(TOO_LATE, now, now)
            lateness.answered(STORED, now, now)
        lateness.answered(STORED, 3.0, 2.9 + CALM_SECONDS)
    assert len(logged) == 1


@pytest.mark.parametrize(("answer", "took"), [(TOO_LATE, 2.0), (TOO_LATE, 5.0), (REFUSED, 0.1)])
def test_what_took_long_or_was_refused_otherwise_tells_of_no_clock(answer: Pushed, took: float) -> None:
    lateness = Lateness(4.0)
    with capturedLogs() as logged:
        lateness.answered(answer, 10.0, 10.0 + took)
    assert not logged


def test_a_web_node_stays_ready_where_pushes_are_late(world: World) -> None:
    """Where the store's clock is wrong all web nodes would be out of a balancer at once."""

    def push(pushes: Sequence[Push], answered: OnPushed) -> None:
        answered(range(len(pushes)), [TOO_LATE] * len(pushes))

    with patch.object(world.comets, "push", push), capturedLogs() as logged:
        assert world.post("/1/admin/push/private", "1", key="k", expire="9").body == b'{"ret":65535}'
    assert len(logged) == 1
    assert world.get("/health").status == 200
