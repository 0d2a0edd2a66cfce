"""Which connections are furthest behind."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from gopush.comet import slow_consumers as slowest
from gopush.reports import SlowConsumer
from tests.clients import TcpClient, WebSocketClient, eventually
from tests.comet.conftest import Start
from tests.comet.harness import World, result
from tests.comet.wire import CometServer, in_reactor


def found(world: World, most: int = 20) -> list[SlowConsumer]:
    """What is answered at once or a few turns later."""
    world.wait(slowest.HOLDS_SECONDS * 2)
    asked = world.comet.slowest(most)
    world.turns()
    (slow,) = result(asked)
    return list(slow)


def test_those_who_do_not_read_are_reported_the_worst_first() -> None:
    world = World()
    world.subscribe(key="quick")
    world.subscribe(key="slow", reads=False)
    world.subscribe(key="slower", reads=False)
    assert [slow.messages for slow in found(world)] == [0, 0]  # `+h` waits, but that is no message
    for key, pushes in (("quick", 3), ("slow", 1), ("slower", 2)):
        for _ in range(pushes):
            world.push(b"1" * 100, key=key)
    first, second = found(world)
    assert (first.key, first.messages, second.key, second.messages) == ("slower", 2, "slow", 1)
    assert first.bytes > second.bytes > 100
    assert found(world, most=1) == [first]


def test_who_has_read_is_not_reported_any_more() -> None:
    world = World()
    _, wire = world.subscribe(reads=False)
    for _ in range(3):
        world.push(b"1" * 100)
    (slow,) = found(world)
    wire.waiting = wire.waiting[-150:]  # most of it went out, and nothing was sent since
    (later,) = found(world)
    assert (slow.messages, later.messages, later.bytes) == (3, 2, 150)
    wire.read_all()
    assert found(world) == []


def test_all_who_ask_at_once_share_one_walk_which_takes_a_turn_for_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowest, "SLICE_SESSIONS", 2)
    world = World()
    for number in range(7):
        world.subscribe(key=f"k{number}", reads=False)
    looks = Mock(wraps=world.comet._slow_consumers._sessions)
    monkeypatch.setattr(world.comet._slow_consumers, "_sessions", looks)
    answers: list[list[SlowConsumer]] = []
    for _ in range(3):
        world.comet.slowest(20).addCallback(answers.append)
    for _ in range(3):
        world.clock.advance(0)
        assert answers == []
    world.turns()
    world.comet.slowest(20).addCallback(answers.append)  # soon after, the same holds
    assert [len(answer) for answer in answers] == [7] * 4
    assert looks.call_count == 1


def test_a_real_connection_is_reported_by_kind_and_address(start: Start) -> None:
    server = start()
    with TcpClient(server.tcp, rcvbuf=4096) as tcp, WebSocketClient(server.websocket, rcvbuf=4096) as websocket:
        tcp.subscribe("k")
        websocket.subscribe("k")
        for _ in range(40):
            server.push("k", b'"%b"' % (b"x" * 10_000))
        slow = both(server)
        for kind, client in (("tcp", tcp), ("websocket", websocket)):
            host, port = client.socket.getsockname()
            assert slow[kind].peer == f"{host}:{port}"
            assert 0 < slow[kind].messages <= 40
            assert slow[kind].bytes > 10_000
            assert 0 <= slow[kind].seconds < 60
        eventually(lambda: both(server)["tcp"].seconds > slow["tcp"].seconds)
        for _ in range(40):
            tcp.message()
            websocket.message()
        eventually(lambda: reported(server) == [])


def reported(server: CometServer) -> list[SlowConsumer]:
    server.leap(1)  # past what holds
    slow: list[SlowConsumer] = in_reactor(server.comet.slowest, 20)
    return slow


def both(server: CometServer) -> dict[str, SlowConsumer]:
    by_kind: dict[str, SlowConsumer] = {}

    def complete() -> bool:
        by_kind.update({slow.kind: slow for slow in reported(server)})
        return len(by_kind) == 2

    eventually(complete)
    return by_kind
