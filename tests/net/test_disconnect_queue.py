"""Thousands of connections that end at once."""

from __future__ import annotations

from gopush.net.accept import DISCONNECTS_IN_A_TURN, DisconnectQueue
from tests.comet.harness import Clock
from tests.fixtures import Logged


class Connection:
    def __init__(self, number: int, ended: list[int]) -> None:
        self._number = number
        self._ended = ended

    def end(self) -> None:
        self._ended.append(self._number)


class Faulty(Connection):
    def end(self) -> None:
        super().end()
        raise RuntimeError("a mistake")


def test_a_few_end_in_each_turn_in_the_order_of_their_coming() -> None:
    clock, ended = Clock(), list[int]()
    disconnects = DisconnectQueue(clock)
    for number in range(100):
        disconnects.add(Connection(number, ended))
    assert ended == []
    turns = 0
    while clock.due:
        clock.advance(0)
        turns += 1
        assert ended == list(range(min(100, turns * DISCONNECTS_IN_A_TURN)))
    assert len(ended) == 100


def test_one_that_comes_while_others_wait_has_its_turn_too() -> None:
    clock, ended = Clock(), list[int]()
    disconnects = DisconnectQueue(clock)
    disconnects.add(Connection(0, ended))
    clock.advance(0)
    disconnects.add(Connection(1, ended))
    clock.advance(0)
    assert ended == [0, 1]
    assert not clock.due


def test_one_that_fails_holds_up_nobody(logged: Logged) -> None:
    clock, ended = Clock(), list[int]()
    disconnects = DisconnectQueue(clock)
    disconnects.add(Faulty(0, ended))
    for number in range(1, DISCONNECTS_IN_A_TURN + 2):
        disconnects.add(Connection(number, ended))
    clock.advance(0)
    clock.advance(0)
    disconnects.add(Connection(-1, ended))
    clock.advance(0)
    assert ended == [*range(DISCONNECTS_IN_A_TURN + 2), -1]
    assert len(logged.tracebacks()) == 1
