"""Deadlines (protocol.md, section 1), the sweep (delivery rule 5), and subscribers whose key moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from gopush.comet.housekeeping import SWEPT_PER_SECOND, TICK_SECONDS
from gopush.comet.session import Session
from gopush.membership.view import View
from gopush.model import NodeInfo
from tests.comet.harness import Wire, World, frame
from tests.comet.test_delivery import append

H = b"+h\r\n"


def elsewhere(world: World) -> None:
    """All keys belong to another comet from now on."""
    view = world.coordination.view
    world.services["c9"] = world.services["c1"]
    world.coordination.adopt(View([NodeInfo("other", 0, ("c9",))], view.messages))


def tracked(world: World, session: Session) -> bool:
    return any(session in slot for slot in world.comet.wheel._slots)


# --- deadlines ---


def test_a_request_that_does_not_arrive_within_5_s_is_closed_without_a_reply() -> None:
    world = World()
    world.housekeeping()
    _, wire = world.open()
    world.wait(4.9)
    assert not wire.closed
    world.wait(1.6)
    assert wire.aborted
    assert wire.out == b""


def test_silence_of_heartbeat_plus_5_s_closes_without_a_reply() -> None:
    world = World()
    world.housekeeping()
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
    world.housekeeping()
    session, wire = world.subscribe()
    wire.on_closed = lambda: None  # the client does not read, or does not close
    world.comet.refuse(session, b"-n\r\n")
    world.wait(4.5)
    session.heard(1, world.clock.seconds())
    assert not wire.aborted
    world.wait(2)
    assert wire.aborted
    assert world.comet.counters.timed_out == 0, "it is no silent one"


def test_a_connection_that_is_gone_is_not_tracked() -> None:
    world = World()
    session, wire = world.subscribe()
    assert tracked(world, session)
    wire.abort()
    world.turns()
    assert not tracked(world, session)
    world.comet.refuse(session, b"-n\r\n")
    world.comet.end(session)
    assert not tracked(world, session)


def test_a_connection_that_goes_while_it_is_refused_is_not_tracked() -> None:
    world = World()
    session, wire = world.subscribe()
    wire.tells_at_once = True
    world.comet.refuse(session, b"-n\r\n")
    assert not tracked(world, session)


# --- the sweep ---


def test_every_channel_is_compared_every_30_s() -> None:
    world = World()
    world.housekeeping()
    wires = [world.subscribe(key=f"k{i}")[1] for i in range(200)]
    forwards = [append(world, b"1", key=f"k{i}") for i in range(200)]
    for session in [session for channel in world.comet.channels.values() for session in channel.live]:
        session.deadline += 1000
    world.node.calls.clear()
    world.wait(31.5, TICK_SECONDS)
    assert [wire.out for wire in wires] == [H + frame(forward.mid, b"1") for forward in forwards]
    asked = [keys for name, keys in world.node.calls if name == "heads"]
    assert max(map(len, asked)) < 20  # a slow walk
    assert sum(map(len, asked)) <= 270


def test_without_zookeeper_every_channel_is_compared_every_2_s(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.housekeeping()
    wires = [world.subscribe(key=f"k{i}")[1] for i in range(200)]
    monkeypatch.setattr(world.coordination, "connected", False)
    forwards = [append(world, b"1", key=f"k{i}") for i in range(200)]
    world.wait(3.5, TICK_SECONDS)
    assert [wire.out for wire in wires] == [H + frame(forward.mid, b"1") for forward in forwards]


def missed(world: World, wires: list[Wire], seconds: float) -> int:
    """Others append to the keys of these wires; how many have not got it after so long."""
    forwards = [append(world, b"1", key=f"k{i}") for i in range(len(wires))]
    world.wait(seconds, TICK_SECONDS)
    return sum(not wire.out.endswith(frame(f.mid, b"1")) for wire, f in zip(wires, forwards, strict=True))


@pytest.mark.parametrize("frozen", [False, True])
def test_every_channel_is_compared_soon_after_the_comet_was_away(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others took it for gone, and still may for a moment: what they appended meanwhile was told to nobody here."""
    world = World()
    world.housekeeping()
    wires = [world.subscribe(key=f"k{i}")[1] for i in range(200)]
    world.wait(3, TICK_SECONDS)
    if frozen:
        world.clock.advance(10)
    else:
        monkeypatch.setattr(world.coordination, "connected", False)
        world.wait(1, TICK_SECONDS)
        monkeypatch.setattr(world.coordination, "connected", True)
    world.wait(0.5, TICK_SECONDS)
    assert missed(world, wires, 7.5) == 0
    assert missed(world, wires, 7.5) > 100, "it is a slow walk again"


def test_a_new_channel_is_compared_within_one_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the walk under way began before it was there."""
    world = World()
    world.housekeeping()
    old = [world.subscribe(key=f"old{i}")[1] for i in range(200)]
    world.wait(1.5, TICK_SECONDS)
    wires = [world.subscribe(key=f"k{i}")[1] for i in range(10)]
    for session in [session for channel in world.comet.channels.values() for session in channel.live]:
        session.deadline += 1000
    assert missed(world, wires, 31.5) == 0
    assert not any(wire.closed for wire in old)


def test_no_more_than_10_000_channels_are_compared_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.housekeeping()
    compared: list[int] = []
    monkeypatch.setattr(world.coordination, "connected", False)
    monkeypatch.setattr(world.comet.delivery, "sweep", lambda channels: compared.append(len(list(channels))))
    monkeypatch.setattr(world.comet, "channels", dict.fromkeys(range(100_000)))
    world.wait(5, TICK_SECONDS)
    assert max(compared) == SWEPT_PER_SECOND * TICK_SECONDS


def test_the_walk_meets_channels_that_come_and_go() -> None:
    world = World()
    world.housekeeping()
    wires: list[Wire] = []
    for i in range(100):
        wires.append(world.subscribe(key=f"k{i}")[1])
        if i % 2:
            wires[i - 1].abort()
        world.wait(0.5, 0.5)
    assert not any(wire.aborted for wire in wires[69::2])


# --- keys that move ---


def test_subscribers_whose_key_moves_are_notified_and_closed_spread_over_a_second() -> None:
    """protocol.md, section 1: -n."""
    world = World(max_subscribers=1000)
    world.housekeeping()
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


def test_a_change_of_the_view_looks_at_few_channels_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """All whose key moves are closed all the same."""
    world = World()
    world.housekeeping()
    wires = [world.subscribe(key=f"k{i}")[1] for i in range(2500)]
    asked: list[str] = []
    owner = View.owner

    def counted(view: View, key: str) -> NodeInfo | None:
        asked.append(key)
        return owner(view, key)

    monkeypatch.setattr(View, "owner", counted)
    elsewhere(world)
    assert len(asked) <= 1000
    world.wait(2)
    assert set(asked) == {f"k{i}" for i in range(2500)}
    assert all(wire.closed for wire in wires)


def test_subscribers_whose_key_stays_are_left_alone() -> None:
    world = World()
    world.housekeeping()
    wires = {key: world.subscribe(key=key)[1] for key in (f"k{i}" for i in range(100))}
    view = world.coordination.view
    world.services["c2"] = world.services["c1"]
    world.coordination.adopt(View([*view.comets, NodeInfo("other", 0, ("c2",))], view.messages))
    world.wait(1.5)
    moved = {key for key, wire in wires.items() if wire.closed}
    assert moved == {key for key in wires if not world.comet.owns(key)}
    assert 20 < len(moved) < 80


def test_a_key_that_comes_back_within_the_second_keeps_who_is_left() -> None:
    world = World(max_subscribers=1000)
    world.housekeeping()
    wires = [world.subscribe()[1] for _ in range(100)]
    view = world.coordination.view
    elsewhere(world)
    world.wait(0.5)
    world.coordination.adopt(view)
    world.wait(2)
    assert 30 < sum(wire.closed for wire in wires) < 70


def test_who_has_gone_meanwhile_is_not_moved() -> None:
    world = World(max_subscribers=1000)
    world.housekeeping()
    subscribed = [world.subscribe() for _ in range(100)]
    elsewhere(world)
    elsewhere(world)
    for _, wire in subscribed:
        wire.tells_at_once = True
        wire.abort()
    world.wait(2)
    assert world.comet.counters.moved == 0
    assert not any(tracked(world, session) for session, _ in subscribed)


def test_nobody_is_moved_twice() -> None:
    world = World(max_subscribers=1000)
    world.housekeeping()
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
    housekeeping = world.housekeeping()
    for key in ("a", "b", "b"):
        world.subscribe(key=key)
    housekeeping.leaving = leaving
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    elsewhere(world)
    elsewhere(world)  # those who are on their way do not count again
    world.wait(2)
    globalLogPublisher.removeObserver(observer)
    assert [line for line in lines if "subscribers move" in line] == (
        [] if leaving else ["3 subscribers move: their keys belong to other comets now"]
    )


# --- cut off from all but its clients ---


@contextmanager
def reported(*words: str) -> Iterator[list[str]]:
    """The lines that are logged meanwhile and hold one of these words."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        line = formatEvent(event)
        if any(word in line for word in words):
            lines.append(line)

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def beating(world: World, wait: float) -> None:
    """Time goes by, and all clients send their heartbeats."""
    for _ in range(round(wait / 0.5)):
        for channel in world.comet.channels.values():
            for session in channel.live:
                session.heard(0, world.clock.seconds())
        world.wait(0.5, 0.5)


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_who_can_deliver_nothing_closes_its_subscribers_and_refuses_others(mode: str) -> None:
    """Without ZooKeeper for the time-out, and without any message node: else +h would be all they ever hear."""
    world = World(max_subscribers=1000)
    world.housekeeping()
    wires = [world.subscribe(key=f"k{i % 7}")[1] for i in range(100)]
    with reported("cut off") as lines:
        world.coordination.connected = False
        world.node.mode = mode
        beating(world, 29.5)
        assert not any(wire.closed for wire in wires)
        assert lines == []
        world.wait(1)
        closed = []
        for _ in range(20):
            closed.append(sum(wire.closed for wire in wires))
            world.wait(0.1)
        assert closed[-1] == 100
        assert max(later - earlier for earlier, later in pairwise(closed)) <= 20  # spread out
        assert all(wire.out.endswith(b"-n\r\n") and wire.finished for wire in wires)
        for mid in (None, 0):
            assert world.subscribe(mid=mid)[1].out == b"-n\r\n"
        world.wait(30, 0.5)
        assert lines == [
            "cut off: no ZooKeeper for 30 s, and no message node answers; this comet closes its 100 "
            "subscribers and refuses others until one of them is back"
        ]
    counters = world.comet.counters
    assert (counters.cut_off_closed, counters.cut_off_refused, counters.moved) == (100, 2, 0)


def test_who_was_being_checked_when_it_was_cut_off_is_refused_too() -> None:
    """Nobody would close it: those that were there have been told to go."""
    world = World()
    mid = world.pushed(b"1")
    world.comet_skew = -3600  # so that the log's head is read first
    world.node.hold = ("heads",)
    _, wire = world.subscribe(mid=mid)
    world.comet.cut_off.holds = True
    world.node.release()
    world.turns()
    assert wire.out == b"-n\r\n"
    assert world.comet.counters.cut_off_refused == 1


@pytest.mark.parametrize("back", ["a message node", "ZooKeeper"])
def test_it_lets_them_in_again_once_either_is_back(back: str) -> None:
    world = World()
    world.housekeeping()
    world.subscribe()
    world.coordination.connected = False
    world.node.mode = "down"
    world.wait(35, 0.5)
    assert world.subscribe()[1].out == b"-n\r\n"
    with reported("cut off") as lines:
        if back == "ZooKeeper":
            world.coordination.connected = True
        else:
            world.node.mode = "up"
        world.wait(3, 0.5)
        _, wire = world.subscribe()
        world.node.mode = "up"
        world.wait(5, 0.5)
        assert wire.out.startswith(H)
        assert lines == ["no longer cut off: this comet takes subscribers again"]
    mid = world.pushed(b"1")
    assert wire.out.endswith(frame(mid, b"1"))


@pytest.mark.parametrize(("connected", "mode"), [(True, "down"), (True, "silent"), (False, "up"), (False, "sick")])
def test_with_either_of_the_two_it_closes_nobody(connected: bool, mode: str) -> None:
    """ZooKeeper, or a message node that answers, though its store may not: no other comet would be better off."""
    world = World()
    world.housekeeping()
    _, wire = world.subscribe()
    world.coordination.connected = connected
    world.node.mode = mode
    beating(world, 120)
    assert not wire.closed
    assert world.comet.counters.cut_off_closed == world.comet.counters.cut_off_refused == 0


def test_who_is_left_stays_where_it_ends_while_they_are_closed() -> None:
    world = World(max_subscribers=1000)
    world.housekeeping()
    wires = [world.subscribe()[1] for _ in range(100)]
    world.coordination.connected = False
    world.node.mode = "down"
    beating(world, 30)
    while not any(wire.closed for wire in wires):
        world.wait(0.05)
    world.coordination.connected = True
    world.wait(2)
    assert 0 < sum(wire.closed for wire in wires) < 100


def test_a_process_that_stood_still_asks_before_it_closes_anybody() -> None:
    world = World()
    world.housekeeping()
    session, wire = world.subscribe()
    world.coordination.connected = False
    world.wait(1, 0.5)
    session.deadline += 1000
    world.clock.advance(600)
    beating(world, 10)
    assert not wire.closed


def test_it_asks_seldom_and_only_without_zookeeper(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.housekeeping()
    asked: list[str] = []

    def ask(name: str, _: object) -> Deferred[None]:
        asked.append(name)
        return Deferred()

    monkeypatch.setattr(world.messages, "ask", ask)
    world.wait(60, 0.5)
    assert asked == []
    world.coordination.connected = False
    world.wait(60, 0.5)
    assert asked == ["m1"]  # and waits for the answer


def test_a_comet_that_leaves_closes_all() -> None:
    world = World(max_subscribers=1000)
    housekeeping = world.housekeeping()
    wires = [world.subscribe(key=f"k{i % 7}")[1] for i in range(100)]
    housekeeping.move_all()
    world.wait(0.4)
    assert 20 < sum(wire.closed for wire in wires) < 60
    world.wait(1)
    assert all(wire.out == H + b"-n\r\n" and wire.finished for wire in wires)


def test_it_stops() -> None:
    world = World()
    housekeeping = world.housekeeping()
    housekeeping.stop()
    housekeeping.stop()
    _, wire = world.open()
    world.wait(10)
    assert not wire.closed
