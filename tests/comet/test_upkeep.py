"""Deadlines (protocol.md, section 1), the sweep (delivery rule 5), and subscribers whose key moves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from gopush.comet.session import Session
from gopush.comet.upkeep import SWEPT_PER_SECOND, TICK_SECONDS
from gopush.rpc.coordination import View
from gopush.rpc.model import NodeInfo
from tests.comet.harness import Wire, World, frame
from tests.comet.test_delivery import append

H = b"+h\r\n"


def elsewhere(world: World) -> None:
    """All keys belong to another comet from now on."""
    view = world.coordination.view
    world.gates["c9"] = world.gates["c1"]
    world.coordination.adopt(View([NodeInfo("other", 0, ("c9",))], view.messages))


def watched(world: World, session: Session) -> bool:
    return any(session in slot for slot in world.comet.wheel._slots)


# --- deadlines ---


def test_a_request_that_does_not_arrive_within_5_s_is_closed_without_a_reply() -> None:
    world = World()
    world.upkeep()
    _, wire = world.open()
    world.wait(4.9)
    assert not wire.closed
    world.wait(1.6)
    assert wire.aborted
    assert wire.out == b""


def test_silence_of_heartbeat_plus_5_s_closes_without_a_reply() -> None:
    world = World()
    world.upkeep()
    session, wire = world.subscribe()
    world.wait(34, 0.5)
    assert not wire.closed
    session.heard(1, world.clock.seconds())
    world.wait(34.5, 0.5)
    assert not wire.closed
    world.wait(2, 0.5)
    assert wire.aborted
    assert wire.out == H * 2
    assert world.comet.channels == {}


def test_who_does_not_go_after_the_last_word_is_closed_after_5_s() -> None:
    world = World()
    world.upkeep()
    session, wire = world.subscribe()
    wire.on_closed = lambda: None  # the client does not read, or does not close
    world.comet.refuse(session, b"-n\r\n")
    world.wait(4.5)
    session.heard(1, world.clock.seconds())
    assert not wire.aborted
    world.wait(2)
    assert wire.aborted


def test_a_connection_that_is_gone_is_not_watched() -> None:
    world = World()
    session, wire = world.subscribe()
    assert watched(world, session)
    wire.abort()
    world.turns()
    assert not watched(world, session)
    world.comet.refuse(session, b"-n\r\n")
    world.comet.end(session)
    assert not watched(world, session)


def test_a_connection_that_goes_while_it_is_refused_is_not_watched() -> None:
    world = World()
    session, wire = world.subscribe()
    wire.tells_at_once = True
    world.comet.refuse(session, b"-n\r\n")
    assert not watched(world, session)


# --- the sweep ---


def test_every_channel_is_compared_every_30_s() -> None:
    world = World()
    world.upkeep()
    wires = [world.subscribe(key=f"k{i}")[1] for i in range(200)]
    notices = [append(world, b"1", key=f"k{i}") for i in range(200)]
    for session in [session for channel in world.comet.channels.values() for session in channel.live]:
        session.deadline += 1000
    world.node.calls.clear()
    world.wait(31.5, TICK_SECONDS)
    assert [wire.out for wire in wires] == [H + frame(notice.mid, b"1") for notice in notices]
    asked = [keys for name, keys in world.node.calls if name == "heads"]
    assert max(map(len, asked)) < 20  # a slow walk
    assert sum(map(len, asked)) <= 270


def test_without_zookeeper_every_channel_is_compared_every_2_s(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.upkeep()
    wires = [world.subscribe(key=f"k{i}")[1] for i in range(200)]
    monkeypatch.setattr(world.coordination, "connected", False)
    notices = [append(world, b"1", key=f"k{i}") for i in range(200)]
    world.wait(3.5, TICK_SECONDS)
    assert [wire.out for wire in wires] == [H + frame(notice.mid, b"1") for notice in notices]


def test_no_more_than_10_000_channels_are_compared_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.upkeep()
    compared: list[int] = []
    monkeypatch.setattr(world.coordination, "connected", False)
    monkeypatch.setattr(world.comet.delivery, "sweep", lambda channels: compared.append(len(list(channels))))
    monkeypatch.setattr(world.comet, "channels", dict.fromkeys(range(100_000)))
    world.wait(5, TICK_SECONDS)
    assert max(compared) == SWEPT_PER_SECOND * TICK_SECONDS


def test_the_walk_meets_channels_that_come_and_go() -> None:
    world = World()
    world.upkeep()
    wires: list[Wire] = []
    for i in range(100):
        wires.append(world.subscribe(key=f"k{i}")[1])
        if i % 2:
            wires[i - 1].abort()
        world.wait(0.5, 0.5)
    assert not any(wire.aborted for wire in wires[69::2])


# --- keys that move ---


def test_subscribers_whose_key_moves_are_told_and_closed_spread_over_a_second() -> None:
    """protocol.md, section 1: -n."""
    world = World(max_subscribers=1000)
    world.upkeep()
    wires = [world.subscribe(key=f"k{i % 7}")[1] for i in range(100)]
    elsewhere(world)
    world.turns()
    closed = []
    for _ in range(10):
        closed.append(sum(wire.closed for wire in wires))
        world.wait(0.1)
    closed.append(sum(wire.closed for wire in wires))
    assert closed[-1] == 100
    assert all(later - earlier <= 15 for earlier, later in pairwise(closed))
    assert {wire.out for wire in wires} == {H + b"-n\r\n"}
    assert world.comet.counters.moved == 100
    assert world.comet.channels == {}


def test_subscribers_whose_key_stays_are_left_alone() -> None:
    world = World()
    world.upkeep()
    wires = {key: world.subscribe(key=key)[1] for key in (f"k{i}" for i in range(100))}
    view = world.coordination.view
    world.gates["c2"] = world.gates["c1"]
    world.coordination.adopt(View([*view.comets, NodeInfo("other", 0, ("c2",))], view.messages))
    world.wait(1.5)
    moved = {key for key, wire in wires.items() if wire.closed}
    assert moved == {key for key in wires if not world.comet.owns(key)}
    assert 20 < len(moved) < 80


def test_a_key_that_comes_back_within_the_second_keeps_who_is_left() -> None:
    world = World(max_subscribers=1000)
    world.upkeep()
    wires = [world.subscribe()[1] for _ in range(100)]
    view = world.coordination.view
    elsewhere(world)
    world.wait(0.5)
    world.coordination.adopt(view)
    world.wait(2)
    assert 30 < sum(wire.closed for wire in wires) < 70


def test_who_has_gone_meanwhile_is_not_moved() -> None:
    world = World(max_subscribers=1000)
    world.upkeep()
    subscribed = [world.subscribe() for _ in range(100)]
    elsewhere(world)
    elsewhere(world)
    for _, wire in subscribed:
        wire.tells_at_once = True
        wire.abort()
    world.wait(2)
    assert world.comet.counters.moved == 0
    assert not any(watched(world, session) for session, _ in subscribed)


def test_nobody_is_moved_twice() -> None:
    world = World(max_subscribers=1000)
    world.upkeep()
    wires = [world.subscribe()[1] for _ in range(100)]
    elsewhere(world)
    elsewhere(world)
    world.wait(2)
    assert world.comet.counters.moved == 100
    assert {wire.out for wire in wires} == {H + b"-n\r\n"}


@pytest.mark.parametrize("leaving", [False, True])
def test_how_many_move_is_logged_once(leaving: bool) -> None:
    """Of who leaves, its node says it."""
    world = World(max_subscribers=1000)
    upkeep = world.upkeep()
    for key in ("a", "b", "b"):
        world.subscribe(key=key)
    upkeep.leaving = leaving
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    elsewhere(world)
    world.wait(2)
    globalLogPublisher.removeObserver(observer)
    assert [line for line in lines if "subscribers move" in line] == (
        [] if leaving else ["3 subscribers move: their keys are those of other comets now"]
    )


def test_a_comet_that_leaves_closes_all() -> None:
    world = World(max_subscribers=1000)
    upkeep = world.upkeep()
    wires = [world.subscribe(key=f"k{i % 7}")[1] for i in range(100)]
    upkeep.move_all()
    world.wait(0.4)
    assert 20 < sum(wire.closed for wire in wires) < 60
    world.wait(1)
    assert all(wire.out == H + b"-n\r\n" and wire.finished for wire in wires)


def test_it_stops() -> None:
    world = World()
    upkeep = world.upkeep()
    upkeep.stop()
    upkeep.stop()
    _, wire = world.open()
    world.wait(10)
    assert not wire.closed
