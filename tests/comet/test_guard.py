"""A mistake that meets one subscriber, one message or one channel: all else goes on, and it is told once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from gopush.comet.channel import Channel
from gopush.comet.rounds import SLICE_SUBSCRIBERS
from gopush.model import TCP_RAW, Format
from tests.comet.harness import Wire, World, frame
from tests.comet.test_delivery import append

H = b"+h\r\n"


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    """What is logged with a traceback."""
    found: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_level") is LogLevel.critical:
            found.append(event["log_failure"].value)

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


class Mistake(Exception):  # noqa: N818
    """Of ours."""


def fail(*_: object) -> Any:
    raise Mistake


def break_wire(wire: Wire) -> None:
    wire.send = fail  # type: ignore[assignment, method-assign]


def test_the_other_subscribers_and_channels_are_served(failures: list[Any]) -> None:
    world = World(max_subscribers=1000)
    wires = [world.subscribe()[1] for _ in range(5)]
    _, other = world.subscribe(key="other")
    break_wire(wires[2])
    answers = [world.push(b"1", turns=0), world.push(b"2", key="other", turns=0)]
    world.turns()
    first, second = answers[0][0].mid, answers[1][0].mid
    last = world.pushed(b"3")
    assert wires[2].aborted
    assert {wire.out for wire in wires if wire is not wires[2]} == {H + frame(first, b"1") + frame(last, b"3")}
    assert other.out == H + frame(second, b"2")
    assert [type(failure) for failure in failures] == [Mistake]


def test_the_only_subscriber_of_a_key_fails_alone(failures: list[Any]) -> None:
    """The frames of one turn go out together."""
    world = World()
    wires = [world.subscribe(key=key)[1] for key in "abc"]
    break_wire(wires[1])
    answers = [world.push(b"1", key=key, turns=0) for key in "abc"]
    world.turns()
    assert wires[1].aborted
    assert [wires[at].out for at in (0, 2)] == [H + frame(answers[at][0].mid, b"1") for at in (0, 2)]
    assert [type(failure) for failure in failures] == [Mistake]
    assert world.comet.counters.deliveries == 3


@pytest.mark.parametrize("broken", [0, SLICE_SUBSCRIBERS + 1])
def test_a_round_in_slices_goes_on(broken: int, failures: list[Any]) -> None:
    world = World(max_subscribers=1000)
    wires = [world.subscribe()[1] for _ in range(3 * SLICE_SUBSCRIBERS)]
    break_wire(wires[broken])
    mids = [world.pushed(b"1"), world.pushed(b"2")]
    left = {wire.out for wire in wires if wire is not wires[broken]}
    assert left == {H + frame(mids[0], b"1") + frame(mids[1], b"2")}
    assert wires[broken].aborted
    assert len(failures) == 1


def test_a_round_that_breaks_between_its_parts_leaves_nobody_with_a_hole(
    monkeypatch: pytest.MonkeyPatch, failures: list[Any]
) -> None:
    world = World(max_subscribers=1000, msgbuf_messages=8)
    wires = [world.subscribe()[1] for _ in range(2 * SLICE_SUBSCRIBERS)]
    monkeypatch.setattr("gopush.comet.rounds.Round._count", fail)
    world.comet.forward([append(world, b"%d" % number) for number in range(3)])
    world.turns()
    assert all(wire.aborted for wire in wires)
    assert [type(failure) for failure in failures] == [Mistake]


def test_a_channel_that_fails_once_is_tried_again(monkeypatch: pytest.MonkeyPatch, failures: list[Any]) -> None:
    world = World()
    wires = {key: world.subscribe(key=key)[1] for key in ("a", "b", "c")}
    take = Channel.take
    broken = ["b"]

    def take_or_fail(channel: Channel) -> Any:
        if channel.key in broken:
            broken.clear()
            raise Mistake
        return take(channel)

    monkeypatch.setattr(Channel, "take", take_or_fail)
    answers = {key: world.push(b"1", key=key, turns=0) for key in wires}
    world.wait(2)
    for key, wire in wires.items():
        assert wire.out == H + frame(answers[key][0].mid, b"1")
        assert not wire.closed
    assert len(failures) == 1


def test_a_channel_that_goes_on_failing_is_closed(monkeypatch: pytest.MonkeyPatch, failures: list[Any]) -> None:
    """Its subscribers resume, elsewhere or later: they are not left without a word."""
    world = World()
    wires = {key: world.subscribe(key=key)[1] for key in ("a", "b", "c")}
    take = Channel.take
    monkeypatch.setattr(Channel, "take", lambda channel: fail() if channel.key == "b" else take(channel))
    answers = {key: world.push(b"1", key=key, turns=0) for key in wires}
    world.wait(2)
    assert wires["b"].aborted
    for key in ("a", "c"):
        assert wires[key].out == H + frame(answers[key][0].mid, b"1")
    assert world.comet.delivery._failed == set()
    assert len(failures) == 1


def test_a_message_that_cannot_be_framed_closes_who_was_to_get_it() -> None:
    world = World()
    _, wire = world.subscribe(format=Format(fail, TCP_RAW.reply))
    _, beside = world.subscribe()
    _, other = world.subscribe(key="other")
    answers = [world.push(b"1", turns=0), world.push(b"2", key="other", turns=0)]
    world.turns()
    assert wire.aborted
    assert beside.out == H + frame(answers[0][0].mid, b"1")
    assert other.out == H + frame(answers[1][0].mid, b"2")


def test_a_read_that_raises_is_tried_again(monkeypatch: pytest.MonkeyPatch, failures: list[Any]) -> None:
    world = World()
    _, wire = world.subscribe()
    read = world.messages.read
    monkeypatch.setattr(world.messages, "read", fail)
    forward = append(world, b"1")
    world.comet.forward([forward._replace(body=None)])
    world.turns()
    monkeypatch.setattr(world.messages, "read", read)
    world.wait(2)
    assert wire.out == H + frame(forward.mid, b"1")
    assert len(failures) == 1


def test_an_offer_that_raises_leaves_the_others_and_is_read(
    monkeypatch: pytest.MonkeyPatch, failures: list[Any]
) -> None:
    world = World()
    wires = {key: world.subscribe(key=key)[1] for key in ("a", "b")}
    offer = Channel.offer

    def offer_or_fail(channel: Channel, mid: int, previous: int, body: bytes | None) -> None:
        if channel.key == "a" and body is not None:
            raise Mistake
        offer(channel, mid, previous, body)

    monkeypatch.setattr(Channel, "offer", offer_or_fail)
    answers = {key: world.push(b"1", key=key, turns=0) for key in wires}
    world.wait(1)
    for key, wire in wires.items():
        assert wire.out == H + frame(answers[key][0].mid, b"1")
    assert len(failures) == 1


def test_who_waits_beside_one_that_fails_is_let_in(failures: list[Any]) -> None:
    world = World()
    world.node.mode = "down"
    _, bad = world.subscribe()
    _, good = world.subscribe()
    break_wire(bad)
    world.wait(1)
    _, later = world.subscribe(key="other")
    world.wait(4)
    assert good.out == later.out == H
    assert len(failures) == 1


def test_whose_connection_cannot_be_closed_stops_no_deadline() -> None:
    world = World()
    world.housekeeping()
    wires = [world.open()[1] for _ in range(5)]
    wires[0].abort = wires[2].abort = fail  # type: ignore[method-assign]
    world.wait(8, 0.5)
    assert [wire.aborted for wire in wires] == [False, True, False, True, True]


def test_a_flood_of_mistakes_is_reported_once(failures: list[Any]) -> None:
    world = World(max_subscribers=1000)
    for _ in range(500):
        break_wire(world.subscribe()[1])
    world.pushed(b"1")
    assert len(failures) == 1
    assert world.comet.counters.errors == 500
    assert world.comet.channels == {}


def test_who_waits_for_a_store_that_is_away_is_let_in_though_another_cannot_be(
    monkeypatch: pytest.MonkeyPatch, failures: list[Any]
) -> None:
    """One timer serves all that wait: it goes on."""
    world = World()
    world.node.mode = "down"
    remember = Channel.remember_since

    def fail_for_one(channel: Channel, mid: int) -> None:
        if channel.key == "broken":
            raise Mistake
        remember(channel, mid)

    monkeypatch.setattr(Channel, "remember_since", fail_for_one)
    _, broken = world.subscribe(key="broken")
    _, beside = world.subscribe(key="beside")
    world.wait(2.5)
    assert broken.aborted
    assert beside.out == H
    _, later = world.subscribe(key="later")
    world.wait(2.5)
    assert later.out == H
    assert len(failures) == 1
