"""Who resumes and does not read what it asked for (docs/security.md, Bounds)."""

from __future__ import annotations

import time
from functools import partial

import pytest

from gopush.comet.session import State
from gopush.comet.unread import DEAF_SECONDS, LEAST_BYTES
from gopush.message.store import StoreSettings
from gopush.routing.messages import PAGE_MESSAGES
from tests.clients import TcpClient, WebSocketClient, eventually, frame, request
from tests.comet.conftest import Start
from tests.comet.harness import World
from tests.comet.wire import CometServer, in_reactor

MESSAGES = 12
BODY = b'"%b"' % (b"x" * 400_000)


@pytest.fixture
def server(start: Start) -> CometServer:
    return start(store=StoreSettings(store=MESSAGES))


def resume(server: CometServer, protocol: str, key: str) -> TcpClient | WebSocketClient:
    if protocol == "tcp":
        tcp = TcpClient(server.tcp, rcvbuf=4096)
        tcp.send(request("sub", key, "86400", "", "1", "0"))
        return tcp
    return WebSocketClient(server.websocket, rcvbuf=4096).open(f"key={key}&heartbeat=86400&ver=1&mid=0")


def unread(server: CometServer, key: str) -> int:
    """What waits for the key's subscribers."""

    def waits() -> int:
        channel = server.comet.channels.get(key)
        sessions = [] if channel is None else [*channel.live, *channel.recovering]
        return sum(behind.bytes for session in sessions if (behind := session.wire.behind()) is not None)

    return int(in_reactor(waits))


def has_moved(server: CometServer, key: str, before: int) -> bool:
    """Enough was read, or all of a page, so that the next one waits already."""
    now = unread(server, key)
    return now <= max(before - LEAST_BYTES, 0) or now > before


@pytest.mark.parametrize("protocol", ["tcp", "websocket"])
@pytest.mark.parametrize("messages", [2, MESSAGES])
def test_who_resumes_and_never_reads_is_closed(server: CometServer, key: str, protocol: str, messages: int) -> None:
    """Whether its backlog is one page or more, and however busily it sends heartbeats."""
    for _ in range(messages):
        server.push(key, BODY)
    with resume(server, protocol, key) as client:
        eventually(lambda: unread(server, key) > 100_000)
        for _ in range(4):
            client.send(b"h" if protocol == "tcp" else frame(1, b"h"))

        def closed() -> bool:
            server.leap(DEAF_SECONDS / 100)  # the kernel's buffers still take a little at first
            return server.subscribers(key) == 0

        eventually(closed)
        assert server.comet.counters.deaf_closed == 1


@pytest.mark.parametrize("protocol", ["tcp", "websocket"])
def test_who_reads_slowly_gets_all(server: CometServer, key: str, protocol: str) -> None:
    for _ in range(3):
        server.push(key, BODY)
    with resume(server, protocol, key) as client:
        eventually(lambda: unread(server, key) > 100_000)
        left = 3 * len(BODY)
        while left > 0:
            before = unread(server, key)
            client.read(min(left, 100_000))
            left -= 100_000
            eventually(partial(has_moved, server, key, before))
            server.leap(0.7 * DEAF_SECONDS)
        assert server.subscribers(key) == 1
        assert server.comet.counters.deaf_closed == 0


@pytest.mark.parametrize("protocol", ["tcp", "websocket"])
def test_who_reads_slowly_gets_all_whatever_the_kernel_would_take(start: Start, key: str, protocol: str) -> None:
    server = start(store=StoreSettings(store=MESSAGES), sndbuf=0)
    for _ in range(MESSAGES):
        server.push(key, BODY)
    with resume(server, protocol, key) as client:
        eventually(lambda: unread(server, key) > 100_000)
        for _ in range(5):
            before = unread(server, key)
            client.read(200_000)
            eventually(partial(has_moved, server, key, before))
            server.leap(0.7 * DEAF_SECONDS)
        assert server.subscribers(key) == 1
        assert server.comet.counters.deaf_closed == 0


@pytest.mark.parametrize("protocol", ["tcp", "websocket"])
def test_who_reads_little_but_steadily_gets_all(start: Start, key: str, protocol: str) -> None:
    """Less than what the kernel has to be rid of before it asks for more."""
    server = start(store=StoreSettings(store=MESSAGES), sndbuf=0)
    for _ in range(MESSAGES):
        server.push(key, BODY)

    def left() -> int:
        channel = server.comet.channels[key]
        return sum(session.unread for session in (*channel.live, *channel.recovering))

    with resume(server, protocol, key) as client:
        eventually(lambda: unread(server, key) > 100_000)
        for _ in range(10):
            before = in_reactor(left)
            client.read(2 * LEAST_BYTES)
            eventually(lambda: in_reactor(left) <= before - LEAST_BYTES)  # noqa: B023
            server.leap(0.7 * DEAF_SECONDS)
            time.sleep(0.05)
        assert server.subscribers(key) == 1
        assert server.comet.counters.deaf_closed == 0


def test_a_slow_reader_of_live_messages_has_its_own_limit() -> None:
    """msgbuf, not time: delivery rule 9."""
    world = World()
    mid = world.pushed(b"0")
    session, wire = world.subscribe(mid=mid)
    wire.reads = False
    for _ in range(5):
        world.pushed(b'"%b"' % (b"x" * 10_000))
    world.wait(60, 0.5)
    assert session.state is State.LIVE
    assert not wire.closed


def test_it_is_the_backlog_that_counts_where_live_messages_came_after_it() -> None:
    world = World(store=1000)
    for _ in range(PAGE_MESSAGES - 1):
        world.pushed(b'"%b"' % (b"x" * 100))
    session, wire = world.subscribe(mid=0, reads=False)
    world.turns()
    assert session.state is State.LIVE
    for _ in range(30):
        world.pushed(b"1")
        world.wait(0.5, 0.5)
    assert wire.aborted
    assert world.comet.counters.deaf_closed == 1


def test_nobody_is_closed_because_this_process_stood_still() -> None:
    world = World()
    for _ in range(3):
        world.pushed(b'"%b"' % (b"x" * 10_000))
    _, wire = world.subscribe(mid=0, reads=False)
    world.wait(1)
    world.clock.advance(600)
    wire.read_all()
    world.wait(30, 0.5)
    assert not wire.closed
    assert world.comet.counters.deaf_closed == 0


def test_a_slow_reader_has_its_time_after_this_process_stood_still() -> None:
    """Looks before that tell nothing: nobody could show that they read."""
    world = World(store=100)
    for _ in range(20):
        world.pushed(b'"%b"' % (b"x" * 2000))
    _, wire = world.subscribe(mid=0, reads=False)
    world.wait(2, 0.5)
    world.clock.advance(DEAF_SECONDS + 2)
    world.turns()
    for _ in range(4):
        world.wait(DEAF_SECONDS / 2, 0.5)
        wire.out, wire.waiting = wire.out + wire.waiting[:LEAST_BYTES], wire.waiting[LEAST_BYTES:]
    assert not wire.closed
    world.wait(DEAF_SECONDS + 1, 0.5)
    assert wire.aborted
    assert world.comet.counters.deaf_closed == 1


def test_all_are_looked_after_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopush.comet.unread.MOST_LOOKS", 3)
    world = World(max_subscribers=1000)
    world.pushed(b'"%b"' % (b"x" * 10_000))
    wires = [world.subscribe(mid=0, reads=False)[1] for _ in range(10)]
    world.wait(30, 0.5)
    assert all(wire.aborted for wire in wires)
    assert world.clock.calls == []  # nobody is left to look after
