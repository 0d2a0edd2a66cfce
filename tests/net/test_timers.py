"""The wheel of time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.net.timers import NO_SLOT, Wheel


class Item:
    __slots__ = ("deadline", "slot")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.slot = NO_SLOT


def test_expires_at_its_second_and_only_once() -> None:
    wheel, item = Wheel[Item](100.25), Item(105.0)
    wheel.add(item)
    assert wheel.advance(104.99) == []
    assert wheel.advance(105.0) == [item]
    assert wheel.advance(300.0) == []


def test_never_early() -> None:
    wheel, item = Wheel[Item](0.0), Item(5.5)
    wheel.add(item)
    assert wheel.advance(5.4) == []
    assert wheel.advance(6.0) == [item]


def test_putting_off_is_setting_the_attribute() -> None:
    wheel, item = Wheel[Item](0.0), Item(10.0)
    wheel.add(item)
    for second in range(1, 1000):
        item.deadline = second + 10.0
        assert wheel.advance(second) == []
    assert wheel.advance(1008.0) == []
    assert wheel.advance(1009.0) == [item]


def test_bringing_forward_is_adding_again() -> None:
    wheel, item = Wheel[Item](0.0), Item(50.0)
    wheel.add(item)
    item.deadline = 3.0
    wheel.add(item)
    assert wheel.advance(3.0) == [item]
    assert wheel.advance(100.0) == []


def test_a_discarded_item_never_expires_and_discarding_twice_is_harmless() -> None:
    wheel, item = Wheel[Item](0.0), Item(3.0)
    wheel.discard(item)
    wheel.add(item)
    wheel.discard(item)
    wheel.discard(item)
    assert wheel.advance(100.0) == []


def test_an_expired_item_may_be_added_again_or_discarded() -> None:
    wheel, item = Wheel[Item](0.0), Item(3.0)
    wheel.add(item)
    assert wheel.advance(3.0) == [item]
    wheel.discard(item)
    item.deadline = 9.0
    wheel.add(item)
    assert wheel.advance(9.0) == [item]


@pytest.mark.parametrize("deadline", [2.0**63, 2.0**63 + 5, math.inf])
def test_far_deadlines_stay_far(deadline: float) -> None:
    wheel, item = Wheel[Item](0.0), Item(deadline)
    wheel.add(item)
    for second in range(1, 500):
        assert wheel.advance(second) == []
    assert wheel.advance(1e9) == []
    if deadline != math.inf:
        assert wheel.advance(2.0**64) == [item]


def test_an_item_past_its_deadline_expires_with_the_next_second() -> None:
    wheel, item = Wheel[Item](100.0), Item(-5.0)
    wheel.add(item)
    assert wheel.advance(101.0) == [item]


def test_a_clock_that_stands_or_steps_back_expires_nothing() -> None:
    wheel, item = Wheel[Item](100.0), Item(102.0)
    wheel.add(item)
    assert wheel.advance(100.0) == []
    assert wheel.advance(50.0) == []
    assert wheel.advance(102.0) == [item]


def test_those_that_are_late_together_are_given_a_few_at_a_time() -> None:
    wheel = Wheel[Item](0.0)
    items = [Item(2.0) for _ in range(10)]
    for item in items:
        wheel.add(item)
    assert not wheel.late
    found = wheel.advance(2.0, 4)
    assert len(found) == 4
    assert wheel.late
    left = [item for item in items if item not in found]
    left[0].deadline = 5.0  # put off, meanwhile
    wheel.discard(left[1])
    found += wheel.advance(2.0, 4)
    assert len(found) == 8
    assert wheel.advance(2.0, 4) == []  # the one that was put off may be the last that it looks at
    assert not wheel.late
    assert wheel.advance(4.0) == []
    assert wheel.advance(5.0) == [left[0]]
    assert left[1] not in found


@given(
    st.lists(st.floats(0, 1000), max_size=50),
    st.lists(st.floats(0.001, 200), min_size=1, max_size=50),
)
def test_each_item_expires_once_neither_early_nor_more_than_a_second_late(
    deadlines: list[float], steps: list[float]
) -> None:
    wheel = Wheel[Item](0.0)
    waiting = {Item(deadline) for deadline in deadlines}
    for item in waiting:
        wheel.add(item)
    now = 0.0
    for step in steps:
        now += step
        for item in wheel.advance(now):
            assert item.deadline <= now
            waiting.remove(item)
        assert all(item.deadline > now - 1 or now < 1 for item in waiting)
