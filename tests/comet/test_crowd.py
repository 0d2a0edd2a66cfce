"""Many WebSocket clients each of whom sends many frames at once."""

from __future__ import annotations

from typing import Any

import pytest

from gopush.comet.websocket import FRAME_BYTES_IN_A_TURN, PART_BYTES, SubscriberFactory
from tests.clients import CONTINUATION, PING, TEXT, frame, opening
from tests.comet.harness import World
from tests.http.ways import Transport

CROWD = 20
FRAMES = 1000
PONG = b"\x8a\x00"
HEARTBEAT = b"\x81\x04+h\r\n"


class _Client:
    """One client, that sends `more` with its handshake."""

    def __init__(self, factory: SubscriberFactory, key: str, more: bytes = b"") -> None:
        self.transport: Any = _Transport(lenient=True)  # type: ignore[no-untyped-call]
        self.protocol: Any = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.send(opening(f"/sub?key={key}&heartbeat=30") + more)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def came(self, what: bytes) -> int:
        return int(self.transport.value().count(what))


class _Transport(Transport):
    def getHandle(self) -> Any:
        return self

    def setsockopt(self, *_: int) -> None: ...


class _Crowd:
    def __init__(self) -> None:
        self.world = World()
        self.factory = SubscriberFactory(self.world.comet)
        self.members = [_Client(self.factory, f"k{number}") for number in range(CROWD)]
        self.world.turns()
        for member in self.members:
            assert member.came(HEARTBEAT) == 1
            member.transport.clear()

    def came(self, what: bytes) -> list[int]:
        return [member.came(what) for member in self.members]

    def turn(self) -> None:
        self.world.clock.advance(0)


@pytest.fixture
def crowd() -> _Crowd:
    return _Crowd()


@pytest.mark.parametrize(("sent", "answer"), [(frame(PING), PONG), (frame(TEXT, b"h"), HEARTBEAT)], ids=["ping", "h"])
def test_a_few_frames_are_read_in_each_turn(crowd: _Crowd, sent: bytes, answer: bytes) -> None:
    for member in crowd.members:
        member.send(sent * FRAMES)
    most = FRAME_BYTES_IN_A_TURN // len(sent)
    came = sum(crowd.came(answer))
    assert came <= most
    assert crowd.members[-1].transport.producerState == "paused"
    while came < CROWD * FRAMES:
        crowd.turn()
        came, before = sum(crowd.came(answer)), came
        assert 0 < came - before <= most + 1
    crowd.turn()
    assert crowd.came(answer) == [FRAMES] * CROWD
    assert {member.transport.producerState for member in crowd.members} == {"producing"}


def test_who_sends_little_does_not_wait(crowd: _Crowd) -> None:
    for member in crowd.members[1:]:
        member.send(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * FRAMES)
    crowd.members[0].send(frame(PING) * (PART_BYTES // len(frame(PING))))
    assert crowd.members[0].came(PONG) == PART_BYTES // len(frame(PING))


def test_what_comes_with_the_handshake_waits_too(crowd: _Crowd) -> None:
    crowd.factory.frames.take(FRAME_BYTES_IN_A_TURN, lambda: None)
    late = _Client(crowd.factory, "late", frame(PING) * FRAMES)
    assert late.came(PONG) == 0
    for _ in range(FRAMES):
        crowd.turn()
    assert late.came(PONG) == FRAMES


def test_who_leaves_or_ends_while_it_waits_is_read_no_more(crowd: _Crowd) -> None:
    for member in crowd.members:
        member.send(frame(PING) * FRAMES)
    gone, ended = crowd.members[-1], crowd.members[-2]
    came = crowd.came(PONG)[-2:]
    gone.protocol.connectionLost()
    crowd.world.comet.end(ended.protocol._session)
    for _ in range(FRAMES):
        crowd.turn()
    assert crowd.came(PONG) == [FRAMES] * (CROWD - 2) + came
    assert ended.transport.producerState == "producing"  # what still comes is thrown away
