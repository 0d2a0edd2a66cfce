"""The busiest keys of a comet: counted while they are pushed to, and found by walking over them."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from twisted.internet.defer import Deferred

from gopush.comet import busy_keys
from gopush.comet.pushes import MOST_COUNTED, WINDOW_SECONDS, PushRates
from gopush.errors import UnavailableError
from gopush.reports import BusyKey
from tests.comet.harness import Clock, World, result


def found(world: World, prefix: str = "", most: int = 50) -> list[BusyKey]:
    asked = world.comet.keys(prefix, most)
    world.turns()
    (busy,) = result(asked)
    return list(busy)


def test_those_pushed_to_come_first_then_those_with_connections() -> None:
    world = World()
    world.wait(1)
    for _ in range(3):
        world.subscribe(key="full")
    world.subscribe(key="shop-1")
    for key in ("shop-1", "nobody", "nobody"):
        world.push(b"1", key=key)
    assert found(world) == [BusyKey("nobody", 0, 2.0), BusyKey("shop-1", 1, 1.0), BusyKey("full", 3, 0.0)]
    assert found(world, most=1) == [BusyKey("nobody", 0, 2.0)]
    assert found(world, "shop-") == [BusyKey("shop-1", 1, 1.0)]
    assert found(world, "else") == []


def test_what_was_not_stored_counts_nothing() -> None:
    world = World()
    world.node.mode = "down"
    world.push(b"1", key="k")
    world.wait(5)
    assert found(world) == []


def test_pushes_are_forgotten_after_two_windows() -> None:
    world = World()
    world.wait(1)
    for _ in range(60):
        world.push(b"1", key="k")
    assert found(world) == [BusyKey("k", 0, 60.0)]
    world.clock.advance(WINDOW_SECONDS - 1)
    assert found(world) == [BusyKey("k", 0, 2.0)]
    world.clock.advance(WINDOW_SECONDS)
    assert found(world) == []


def test_of_any_number_of_keys_the_busy_ones_are_known_in_bounded_memory() -> None:
    """What is forgotten of one is at most a share of all pushes."""
    rates, random = PushRates(Clock()), Random(1)
    total = 0
    for batch in range(300):
        keys = [f"once-{batch}-{number}" for number in range(200)] + ["busy"] * random.randrange(8, 12)
        random.shuffle(keys)
        rates.count(keys)
        total += len(keys)
        assert len(rates.rates()) <= MOST_COUNTED
    counted = rates.rates()["busy"]
    assert 3000 - total / (MOST_COUNTED / 2) <= counted + 300
    assert counted == max(rates.rates().values())


def test_all_who_ask_for_the_same_share_a_walk_of_a_turn_for_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy_keys, "SLICE_KEYS", 2)
    world = World()
    for number in range(7):
        world.subscribe(key=f"k{number}")
    answers: list[list[BusyKey]] = []
    for _ in range(3):
        world.comet.keys("k", 20).addCallback(answers.append)
    world.comet.keys("k6", 20).addCallback(answers.append)
    for _ in range(3):
        world.clock.advance(0)
        assert answers == []
    world.turns()
    assert [len(answer) for answer in answers] == [7, 7, 7, 1]
    assert found(world, most=3) == answers[0][:3]


def test_who_asks_again_on_an_answer_begins_no_second_walk() -> None:
    """As pipelined calls do."""
    world, walks = World(), list[int]()
    world.subscribe(key="k")
    answers: list[list[BusyKey]] = []

    def rates() -> dict[str, float]:
        walks.append(len(answers))
        return {}

    keys = busy_keys.BusyKeys(world.clock, world.comet.counters, world.comet.channels, rates)

    def ask(left: int) -> None:
        if left:
            keys.find("", 5).addCallback(answers.append).addCallback(lambda _: ask(left - 1))

    for _ in range(3):
        ask(4)
    world.turns()
    assert answers == [[BusyKey("k", 1, 0.0)]] * 12
    assert walks == [0, 3, 6, 9]
    ask(1)
    world.turns()
    assert len(answers) == 13


def test_a_walk_ends_in_time_and_has_looked_first_at_keys_that_are_pushed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy_keys, "SLICE_KEYS", 2)
    world = World()
    for number in range(100):
        world.subscribe(key=f"k{number}")
    world.push(b"1", key="k99")
    answers: dict[str, list[BusyKey]] = {}
    took: list[float] = []

    def ask(prefix: str) -> None:
        start = world.clock.seconds()
        asked = world.comet.keys(prefix, 100).addCallback(partial(answers.__setitem__, prefix))
        asked.addCallback(lambda _: took.append(world.clock.seconds() - start))

    ask("")
    world.clock.advance(0)
    ask("k")
    ask("k9")
    for _ in range(50):
        world.clock.advance(0.02)
    assert answers[""] == [BusyKey("k99", 1, 1.0)] + [
        BusyKey(f"k{number}", 1, 0.0) for number in range(len(answers[""]) - 1)
    ]
    assert 35 < len(answers[""]) < 45
    assert 15 < len(answers["k"]) < 25
    assert answers["k9"] == [BusyKey("k99", 1, 1.0), BusyKey("k9", 1, 0.0)]
    assert max(took) < 1
    assert world.comet.counters.busy_keys_cut_short == 3
    ask("")
    world.turns()
    assert len(answers[""]) == 100
    assert world.comet.counters.busy_keys_cut_short == 3


def test_the_busiest_of_more_than_are_shown_are_found_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy_keys, "SLICE_KEYS", 2)
    monkeypatch.setattr(busy_keys, "MOST", 3)
    world = World()
    for number, connections in enumerate((1, 1, 1, 1, 1, 3, 1, 2, 1)):
        for _ in range(connections):
            world.subscribe(key=f"k{number}")
    assert [busy.connections for busy in found(world)] == [3, 2, 1]


def test_who_asks_for_one_prefix_too_many_has_no_answer() -> None:
    world = World()
    world.subscribe(key="k")
    asked: list[Deferred[list[BusyKey]]] = [
        world.comet.keys(f"k{number}", 1) for number in range(busy_keys.MOST_PREFIXES)
    ]
    (refused,) = result(world.comet.keys("else", 1))
    assert isinstance(refused, UnavailableError)
    asked.append(world.comet.keys("k0", 1))
    world.turns()
    assert [result(each) for each in asked] == [[[]]] * len(asked)


def test_a_walk_that_fails_fails_for_who_asked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.subscribe(key="k")
    with monkeypatch.context() as patched:
        patched.setattr(busy_keys, "MOST", "no number")
        asked = world.comet.keys("", 1)
        world.turns()
    (failed,) = result(asked)
    assert isinstance(failed, TypeError)
    assert found(world) == [BusyKey("k", 1, 0.0)]
