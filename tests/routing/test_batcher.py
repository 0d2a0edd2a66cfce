"""Batchers: batches while one is under way, order, bounds, and what becomes of the content when a call fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from gopush.errors import UnavailableError
from gopush.routing.batcher import Batcher
from gopush.routing.pending import PendingCalls
from gopush.routing.stat import BatcherStats
from gopush.rpc.settings import RpcSettings
from tests.comet.harness import Clock
from tests.rpc.harness import REFUSED, Node

TIMEOUT = 1.0


def pending(items: list[Any], answered: Callable[[Any], object], size: int = 1, until: float = 1000.0) -> PendingCalls:
    """`answered` gets each item's answer, or the error of all."""

    def each(_: Sequence[int], answers: Sequence[Any] | UnavailableError) -> None:
        for answer in [answers] if isinstance(answers, UnavailableError) else answers:
            answered(answer)

    return PendingCalls(["k"] * len(items), items, lambda some: [size] * len(some), until, each)


class World:
    def __init__(self, mode: str = "up", **settings: Any) -> None:
        self.clock = Clock()
        self.node = Node(mode=mode)
        self.given_up: list[list[Any]] = []
        self.said: list[str] = []
        self.moved: list[list[Any]] = []
        self.settings = RpcSettings(**settings)
        self.numbers = BatcherStats()
        self.going_on = False
        self.batcher = Batcher(
            self.clock,
            self.node.call,
            TIMEOUT,
            self.settings,
            self._gave_up,
            self._moved,
            numbers=self.numbers,
            going_on=lambda: self.going_on,
        )

    def _gave_up(self, pendings: list[PendingCalls], said: str) -> None:
        self.said.append(said)
        self.given_up.append([item for pending in pendings for item in pending.items])

    def _moved(self, pendings: list[PendingCalls]) -> None:
        self.moved.append([item for pending in pendings for item in pending.items])

    def put(self, item: Any, size: int = 1, until: float = 1000.0) -> list[Any]:
        answer: list[Any] = []
        self.batcher.put(pending([item], answer.append, size, until))
        return answer

    def turn(self, seconds: float = 0) -> None:
        self.clock.advance(seconds)


def test_what_is_put_in_one_turn_goes_in_one_batch_at_its_end() -> None:
    world = World()
    answers = [world.put(i) for i in range(3)]
    assert world.node.batches == []
    world.turn()
    assert world.node.batches == [[0, 1, 2]]
    assert answers == [[("a", 0)], [("a", 1)], [("a", 2)]]


def test_while_a_batch_is_under_way_what_arrives_gathers_into_the_next() -> None:
    world = World("late")
    first = world.put(0)
    world.turn()
    others = []
    for i in range(1, 5):
        others.append(world.put(i))
        world.turn()
    assert world.node.batches == [[0]]
    world.node.answer()
    assert first == [("a", 0)]
    assert world.node.batches == [[0], [1, 2, 3, 4]]
    assert others == [[]] * 4
    world.node.answer()
    assert others == [[("a", i)] for i in range(1, 5)]


def test_the_next_batch_goes_out_before_the_answers_of_the_last_are_handled() -> None:
    """The peer works while they are."""
    world = World("late")
    batches_seen: list[int] = []
    world.batcher.put(pending([0], lambda _: batches_seen.append(len(world.node.batches))))
    world.turn()
    world.put(1)
    world.node.answer()
    assert batches_seen == [2]


def test_answers_are_handled_in_the_order_of_the_calls_though_later_ones_come_at_once() -> None:
    world = World("late", batch_messages=2)
    order: list[int] = []
    for i in range(6):
        world.batcher.put(pending([i], lambda answer: order.append(answer[1])))
    world.turn()
    world.node.mode = "up"
    world.node.answer()
    assert order == list(range(6))
    assert world.node.batches == [[0, 1], [2, 3], [4, 5]]


def test_batches_that_are_answered_at_once_may_be_thousands() -> None:
    world = World(batch_messages=1)
    order: list[int] = []
    for i in range(5000):
        world.batcher.put(pending([i], lambda answer: order.append(answer[1])))
    world.turn()
    assert order == list(range(5000))


def test_what_failed_and_is_called_again_at_once_waits_for_the_next_turn() -> None:
    world = World("down")
    given_up = world.given_up

    def call_again(pendings: list[PendingCalls], said: str) -> None:
        given_up.append([0])
        world.batcher.put(pending([0], lambda _: None), gathered=True)

    world.batcher._gave_up = call_again
    world.batcher.put(pending([0], lambda _: None), gathered=True)
    assert len(given_up) == 1


def test_what_is_put_while_answers_are_handled_goes_in_a_batch_of_its_own() -> None:
    world = World()
    again: list[list[Any]] = []
    world.batcher.put(pending([0], lambda _: again.append(world.put(1))))
    world.turn()
    world.turn()
    assert again == [[("a", 1)]]
    assert world.node.batches == [[0], [1]]


def test_a_batch_is_bounded_in_messages() -> None:
    world = World(batch_messages=2)
    for i in range(5):
        world.put(i)
    world.turn()
    assert world.node.batches == [[0, 1], [2, 3], [4]]
    assert (world.numbers.sizes.total, sum(world.numbers.sizes.counts)) == (5, 3)


def test_a_batch_is_bounded_in_bytes_but_takes_one_message_of_any_size() -> None:
    world = World(batch_bytes=100)
    for item, size in enumerate([60, 40, 1, 500, 50, 50, 1]):
        world.put(item, size)
    world.turn()
    assert world.node.batches == [[0, 1], [2], [3], [4, 5], [6]]


def after_a_time_out(**settings: Any) -> World:
    """A batcher that has just given up a batch of 512 KiB; its peer waits for the test from now on."""
    world = World("silent", batch_bytes=512 << 10, **settings)
    for item in range(8):
        world.put(item, 64 << 10)
    world.turn()
    world.turn(TIMEOUT)
    world.turn()
    assert world.given_up == [list(range(8))]
    world.node.mode = "late"
    world.node.batches.clear()
    return world


def test_after_a_time_out_batches_begin_small_and_grow_while_their_answers_are_quick() -> None:
    """Over a slow link the next one of that size would be given up as well. A peer that was frozen has all soon."""
    world = after_a_time_out()
    for item in range(24):
        world.put(item, 64 << 10)
    world.turn()
    for _ in range(5):
        world.node.answer()
    assert [len(batch) for batch in world.node.batches] == [1, 2, 4, 8, 8, 1]


def test_a_batch_that_took_long_lets_the_next_one_not_grow() -> None:
    world = after_a_time_out()
    for item in range(8):
        world.put(item, 64 << 10)
    world.turn()
    for seconds in (0, TIMEOUT / 4, TIMEOUT / 2):
        world.turn(seconds)
        world.node.answer()
    assert [len(batch) for batch in world.node.batches] == [1, 2, 2, 2]


def test_quick_answers_to_small_batches_say_nothing_about_big_ones() -> None:
    world = after_a_time_out()
    for item in range(5):
        world.put(item)
        world.turn()
        world.node.answer()
    for item in range(3):
        world.put(item, 64 << 10)
    world.turn()
    assert [len(batch) for batch in world.node.batches] == [1, 1, 1, 1, 1, 1]


def test_behind_a_full_batch_that_took_long_nothing_is_sent_that_cannot_be_answered_in_time() -> None:
    """Where more comes than the link carries, all that was sent would be answered too late, and nobody in time."""
    world = World("late", batch_bytes=100)
    world.put(0, 60)
    hopeless, hopeful = world.put(1, 60, until=0.9), world.put(2, 60, until=1.1)
    world.turn()
    world.turn(TIMEOUT / 2)
    world.node.answer()
    assert isinstance(hopeless[0], UnavailableError)
    assert (world.node.batches, hopeful) == ([[0], [2]], [])
    assert world.numbers.counters.late == 1


def test_so_it_is_behind_a_batch_that_was_full_of_small_calls() -> None:
    world = World("late", batch_messages=2)
    for item in range(2):
        world.put(item)
    hopeless, hopeful = [[world.put(item, until=until) for item in (2, 3)] for until in (0.9, 1.1)]
    world.turn()
    world.turn(TIMEOUT / 2)
    world.node.answer()
    assert all(isinstance(answers[0], UnavailableError) for answers in hopeless)
    assert (world.node.batches, hopeful) == ([[0, 1], [2, 3]], [[], []])
    assert world.numbers.counters.late == 2


def test_what_one_batch_took_says_nothing_once_nothing_waits() -> None:
    world = World("late", batch_bytes=100)
    world.put(0, 60)
    world.put(1, 60)
    world.turn()
    world.turn(TIMEOUT / 2)
    for _ in range(2):
        world.node.answer()
    world.put(2, until=0.6)
    world.turn()
    assert world.node.batches == [[0], [1], [2]]


def test_what_a_call_took_that_filled_its_batch_says_nothing_to_one_that_comes_later() -> None:
    world = after_a_time_out()
    world.put(0, 100 << 10)
    world.turn()
    world.clock.rightNow += 5 * TIMEOUT  # this process stands still, and reads the answer first
    world.node.answer()
    world.turn(100)
    assert world.put(1, until=world.clock.seconds() + 2 * TIMEOUT) == []
    world.turn()
    assert world.node.batches == [[0], [1]]


def test_what_a_full_batch_took_says_nothing_where_what_waited_is_handed_over() -> None:
    world = World("late", batch_messages=1)
    world.put(0)
    world.put(1)
    world.turn()
    world.batcher.hand_over()
    world.turn(TIMEOUT / 2)
    world.node.answer()
    assert world.moved == [[1]]
    world.put(2, until=world.clock.seconds() + TIMEOUT / 4)
    world.turn()
    assert world.node.batches == [[0], [2]]


def test_what_comes_as_a_process_wakes_is_sent() -> None:
    """How long it stood still does not tell what a batch takes."""
    world = World("late", batch_bytes=100)
    world.put(0, 60)
    world.put(1, 60)
    world.turn()
    world.clock.rightNow += 5 * TIMEOUT
    world.put(2, until=world.clock.seconds() + TIMEOUT)
    world.node.answer()
    assert world.node.batches == [[0], [1, 2]]


def test_what_came_together_parts_where_a_batch_may_not_hold_it() -> None:
    """And one call of any size goes, alone."""
    world = after_a_time_out()
    answers: list[Any] = []
    world.batcher.put(pending([0, 1, 2, 3], answers.append, 40 << 10))
    world.put(4, 900 << 10)
    world.turn()
    for _ in range(3):
        world.node.answer()
    assert world.node.batches == [[0], [1, 2, 3], [4]]
    assert answers == [("a", 0), ("a", 1), ("a", 2), ("a", 3)]
    assert world.batcher.waiting == (0, 0)


def test_a_batcher_is_bounded_in_messages() -> None:
    """Delivery rule 9: beyond that the answer is 65535 at once."""
    world = World("late", lane_messages=3)
    world.put("under way")
    world.turn()
    for i in range(3):
        world.put(i)
    assert isinstance(world.put("too much")[0], UnavailableError)
    assert (world.batcher.waiting, world.numbers.counters.refused) == ((3, 3), 1)
    world.node.answer()
    world.put("again")
    assert (world.batcher.waiting, world.numbers.counters.refused) == ((1, 1), 1)


def test_a_batcher_is_bounded_in_bytes() -> None:
    world = World("late", lane_bytes=100)
    world.put("under way", 1000)
    world.turn()
    world.put("one", 101)
    assert isinstance(world.put("too much", 1)[0], UnavailableError)
    world.node.answer()
    world.put("again", 1)


def test_a_full_batcher_goes_through_at_its_default_bounds() -> None:
    """Also where the peer is in this process and answers at once."""
    world = World()
    answers = [world.put(i) for i in range(world.settings.lane_messages)]
    world.turn()
    assert all(answers)
    assert world.given_up == []


def test_what_has_waited_past_its_time_is_not_sent() -> None:
    """Nothing fires after 65535 was answered."""
    world = World("late")
    world.put(0)
    world.turn()
    early, late = world.put(1, until=0.5), world.put(2, until=2.0)
    world.turn(0.5)
    world.node.answer()
    assert world.node.batches == [[0], [2]]
    assert isinstance(early[0], UnavailableError)
    assert late == []


def test_a_batcher_full_of_what_is_past_its_time_sends_nothing() -> None:
    world = World()
    answer = world.put(0, until=0.0)
    world.turn()
    assert world.node.batches == []
    assert isinstance(answer[0], UnavailableError)
    assert world.put(1) == []
    world.turn()
    assert world.node.batches == [[1]]


@pytest.mark.parametrize("mode", ["down", "short"])
def test_a_call_that_fails_hands_over_all_that_has_no_answer_in_order(mode: str) -> None:
    world = World(mode, batch_messages=2)
    answers = [world.put(i) for i in range(5)]
    world.turn()
    assert world.given_up == [[0, 1, 2, 3, 4]]
    assert answers == [[]] * 5


class MistakeError(Exception):
    """An error in gopush."""


def test_an_error_in_taking_an_answer_is_the_outcome_of_its_batch_and_what_waits_goes_on() -> None:
    world = World("late")
    first = world.put(0)

    def once(answer: Any) -> bool:
        world.batcher._refused = None
        raise MistakeError

    world.batcher._refused = once
    world.turn()
    second = world.put(1)
    world.node.answer()
    assert [type(answer) for answer in first] == [UnavailableError]
    world.turn()
    world.node.answer()
    assert second == [("a", 1)]
    assert world.given_up == []
    world.turn(2 * TIMEOUT)
    assert world.batcher.busy is False


def test_an_error_in_handing_back_what_was_refused_keeps_nothing_from_going() -> None:
    world = World("refuse")

    def mistake(*_: Any) -> None:
        raise MistakeError

    world.batcher._refused, world.batcher._sent_back = lambda answer: answer[0] == REFUSED, mistake
    first = world.put(0)
    world.turn()
    assert [type(answer) for answer in first] == [UnavailableError]
    world.node.mode = "up"
    second = world.put(1)
    world.turn()
    assert second == [("a", 1)]


@pytest.mark.parametrize("taking", ["_sent_back", "_moved", "_gave_up"])
def test_an_error_in_what_takes_calls_over_is_their_outcome_and_no_call_has_two(taking: str) -> None:
    world = World("late", batch_messages=2)
    outcomes: list[tuple[Any, Any]] = []

    def mistake(*_: Any) -> None:
        raise MistakeError

    setattr(world.batcher, taking, mistake)
    world.batcher._refused = lambda answer: answer[0] == REFUSED
    held: dict[str, Any] = {}
    calls = PendingCalls(
        ["k", "l"], [0, 1], lambda some: [1] * len(some), 1000.0, lambda *outcome: outcomes.append(outcome)
    )
    calls.hold(held)
    world.batcher.put(calls)
    world.turn()
    behind = world.put(2)
    if taking == "_moved":
        world.batcher.hand_over()
    elif taking == "_gave_up":
        world.batcher.give_up()
    else:
        world.node.mode = "refuse"
    world.node.answer()
    world.node.mode = "up"
    world.turn()
    assert sorted(index for indexes, _ in outcomes for index in indexes) == [0, 1]
    assert held == {}
    assert [type(answer) for answer in behind] == [UnavailableError]
    later = world.put(3)
    world.turn()
    assert later == [("a", 3)]


@pytest.mark.parametrize("mode", ["up", "late"])
def test_an_error_in_a_call_that_is_answered_is_its_outcome_and_the_others_are_answered(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(mode, batch_messages=2)
    answers = [world.put(i) for i in range(3)]
    answered = PendingCalls.answer

    def once(calls: PendingCalls, results: Any) -> None:
        monkeypatch.setattr(PendingCalls, "answer", answered)
        raise MistakeError

    monkeypatch.setattr(PendingCalls, "answer", once)
    world.turn()
    world.node.answer_late()
    assert [type(answer) for answer in answers[0]] == [UnavailableError]
    assert answers[1:] == [[("a", 1)], [("a", 2)]]
    answers.append(world.put(3))
    world.turn()
    world.node.answer_late()
    assert answers[3] == [("a", 3)]


def test_a_call_that_takes_too_long_hands_over_all_that_has_no_answer_in_order() -> None:
    world = World("silent", batch_messages=2)
    for i in range(3):
        world.put(i)
    world.turn()
    world.put(3)
    world.turn(TIMEOUT - 0.01)
    assert world.given_up == []
    world.turn(0.01)
    world.turn()  # the last look (gopush.net.clock)
    assert world.given_up == [[0, 1, 2, 3]]


def test_an_answer_that_is_on_its_way_is_taken_though_it_comes_late() -> None:
    """What waits behind it is not kept for as long."""
    world = World("late")
    world.going_on = True
    first = world.put(0, until=2.0)
    world.turn()
    behind = world.put(1, until=2.0)
    for _ in range(6):
        world.turn(TIMEOUT / 2)
        world.turn()
    assert first == []
    assert isinstance(behind[0], UnavailableError)
    world.node.answer()
    assert first == [("a", 0)]
    assert world.given_up == []


def test_a_batcher_that_was_given_up_serves_again() -> None:
    world = World("late")
    lost = world.put(0)
    world.turn()
    world.batcher.give_up()
    again = world.put(1)
    world.turn()
    world.node.answer()  # of the call that was given up: too late
    assert lost == []
    assert again == []
    world.node.answer()
    assert again == [("a", 1)]
    assert world.given_up == [[0]]


def test_giving_up_an_empty_batcher_is_nothing() -> None:
    world = World()
    world.batcher.give_up()
    assert world.given_up == []


def test_a_time_out_after_giving_up_is_not_reported_again() -> None:
    world = World("silent")
    world.put(0)
    world.turn()
    world.batcher.give_up()
    world.turn(TIMEOUT / 2)
    world.put(1)
    world.turn()
    world.turn(TIMEOUT / 2)
    assert world.given_up == [[0]]
    world.turn(TIMEOUT / 2)
    world.turn()
    assert world.given_up == [[0], [1]]


def test_what_waits_is_handed_over_once_the_batch_under_way_is_answered() -> None:
    """A key's order: until then the key stays with this peer."""
    world = World("late")
    first = world.put(0)
    world.turn()
    world.put(1)
    world.batcher.hand_over()
    world.put(2)
    assert world.moved == []
    assert world.batcher.busy
    world.node.answer()
    assert first == [("a", 0)]
    assert world.moved == [[1, 2]]
    assert not world.batcher.busy


def test_what_waits_is_handed_over_at_once_where_nothing_is_under_way() -> None:
    world = World("late")
    world.put(0)
    world.batcher.hand_over()
    world.turn()
    assert (world.moved, world.node.batches) == ([[0]], [])
    world.put(1)
    world.turn()
    assert world.node.batches == [[1]]


def test_a_batch_that_fails_goes_with_what_was_to_be_handed_over() -> None:
    world = World("silent")
    world.put(0)
    world.turn()
    world.put(1)
    world.batcher.hand_over()
    world.turn(TIMEOUT)
    world.turn()
    assert (world.given_up, world.moved) == ([[0, 1]], [])


def test_a_call_with_big_answers_has_small_batches() -> None:
    clock = Clock()
    batches: list[int] = []

    def send(items: list[Any]) -> Deferred[list[Any]]:
        batches.append(len(items))
        return succeed(items)

    batcher = Batcher(clock, send, TIMEOUT, RpcSettings(), lambda _, said: None, lambda _: None, most=16)
    for number in range(40):
        batcher.put(pending([number], lambda _: None))
    clock.advance(0)
    assert batches == [16, 16, 8]
