"""Time-outs, where the process that waits was frozen itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, TimeoutError, fail

import gopush
from gopush.net.clock import EXPIRED_IN_A_TURN, QUIET_SECONDS, Deadlines, Expiry, LastLook, repeating, within
from gopush.net.timers import NO_SLOT, Wheel
from tests.comet.harness import Clock
from tests.fixtures import Logged


def outcome(call: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    call.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


def test_a_call_without_an_answer_fails_in_time() -> None:
    clock = Clock()
    found = outcome(within(1.0, Deferred(), clock))
    clock.advance(0.99)
    assert found == []
    clock.advance(0.02)
    clock.advance(0)
    assert isinstance(found[0], TimeoutError)
    assert not clock.getDelayedCalls()


def test_an_answer_in_time_ends_the_wait() -> None:
    clock = Clock()
    call: Deferred[int] = Deferred()
    found = outcome(within(1.0, call, clock))
    call.callback(7)
    assert found == [7]
    assert not clock.getDelayedCalls()


def test_what_came_while_the_process_was_frozen_is_read_before_a_time_out_counts() -> None:
    """A reactor calls what is due before it looks at its sockets."""
    clock = Clock()
    call: Deferred[int] = Deferred()
    found = outcome(within(1.0, call, clock))
    clock.advance(15)  # it wakes: the time-out is due
    assert found == []
    call.callback(7)  # and now the socket is read
    clock.advance(0)
    assert found == [7]
    assert not clock.getDelayedCalls()


def test_a_late_call_can_be_cancelled_at_any_time() -> None:
    called: list[int] = []
    for waits in (0.5, 1.5):
        clock = Clock()
        late = LastLook(clock, 1.0, partial(called.append, 1))
        clock.advance(waits)
        assert late.active()
        late.cancel()
        assert not late.active()
        clock.advance(5)
        clock.advance(0)
    assert called == []


def test_what_repeats_goes_on_after_errors_and_says_so_seldom(logged: Logged) -> None:
    clock, calls = Clock(), []

    def call() -> Deferred[None]:
        calls.append(clock.seconds())
        if len(calls) % 2:
            raise ValueError("at once")
        return fail(ValueError("later"))

    loop = repeating(call, clock)
    loop.start(1.0, now=False)
    for _ in range(int(2 * QUIET_SECONDS)):
        clock.advance(1)
    assert len(calls) == 2 * QUIET_SECONDS
    assert len(logged.tracebacks()) == 2
    loop.stop()
    assert not clock.getDelayedCalls()


def test_nothing_repeats_in_any_other_way() -> None:
    """A LoopingCall ends with the first error, and nobody hears of it."""
    for path in Path(gopush.__file__).parent.rglob("*.py"):
        assert path.name == "clock.py" or "= LoopingCall(" not in path.read_text(), path


class Item:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.slot = NO_SLOT


def test_deadlines_are_looked_after_by_one_loop_and_a_mistake_at_one_is_not_the_others(logged: Logged) -> None:
    clock = Clock()
    wheel: Wheel[Item] = Wheel(clock.seconds())
    busy: set[Item] = set()
    met: list[Item] = []

    def due(item: Item) -> None:
        busy.discard(item)
        met.append(item)
        if len(met) == 1:
            raise ValueError("a mistake")

    deadlines = Deadlines(wheel, due, lambda: busy, clock)
    for _ in range(100):  # the first one comes and goes, again and again
        brief = Item(clock.seconds() + 30)
        wheel.add(brief)
        busy.add(brief)
        deadlines.watch()
        busy.discard(brief)
        wheel.discard(brief)
    assert len(clock.getDelayedCalls()) == 1
    for item in [Item(clock.seconds() + 2) for _ in range(3)]:
        wheel.add(item)
        busy.add(item)
    deadlines.watch()
    for _ in range(5):
        clock.advance(1)
    assert len(met) == 3
    assert len(logged.tracebacks()) == 1
    assert not clock.getDelayedCalls()


def test_whose_deadline_is_put_off_in_the_turn_of_the_look_is_not_due() -> None:
    """A process that was frozen finds deadlines over before it has read its sockets."""
    clock = Clock()
    wheel: Wheel[Item] = Wheel(clock.seconds())
    met: list[Item] = []
    expiry = Expiry(wheel, met.append, clock)
    silent, heard = (Item(clock.seconds() + 1) for _ in range(2))
    wheel.add(silent)
    wheel.add(heard)
    clock.advance(8)
    expiry.look()
    heard.deadline = clock.seconds() + 1
    clock.advance(0)
    assert met == [silent]


@pytest.mark.parametrize("eighth", range(8))
def test_a_deadline_is_met_less_than_a_second_late_whenever_the_first_item_came(eighth: int) -> None:
    clock = Clock()
    clock.advance(1000 + eighth / 8)
    wheel: Wheel[Item] = Wheel(clock.seconds())
    late: list[float] = []
    waiting: set[Item] = set()

    def due(item: Item) -> None:
        waiting.discard(item)
        late.append(clock.seconds() - item.deadline)

    deadlines = Deadlines(wheel, due, lambda: waiting, clock)
    for seconds in (1, 2, 5):
        item = Item(clock.seconds() + seconds)
        wheel.add(item)
        waiting.add(item)
        deadlines.watch()
    for _ in range(8 * 7):
        clock.advance(1 / 8)
        clock.advance(0)  # what is due waits one turn more
    assert len(late) == 3
    assert all(0 <= each < 1 for each in late)


def test_many_deadlines_at_once_do_not_hold_up_a_turn(logged: Logged) -> None:
    clock = Clock()
    wheel: Wheel[Item] = Wheel(clock.seconds())
    met: list[Item] = []
    expiry = Expiry(wheel, met.append, clock)
    for item in [Item(clock.seconds() + 1) for _ in range(3 * EXPIRED_IN_A_TURN)]:
        wheel.add(item)
    clock.advance(1)
    expiry.look()
    assert not met  # what has come meanwhile is read first
    clock.advance(0)
    assert len(met) == EXPIRED_IN_A_TURN
    expiry.look()  # the next second comes before all are done
    clock.advance(0)
    assert len(met) == 2 * EXPIRED_IN_A_TURN
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(0)
    assert len(met) == 3 * EXPIRED_IN_A_TURN
    assert not clock.getDelayedCalls()
