from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gopush
from gopush.client import subscriber
from gopush.client.address import Server
from gopush.client.subscriber import Subscriber, frames, mid_of
from gopush.errors import NoNodeError, ParameterError, UnavailableError

Script = Callable[[socket.socket], None]


def message(mid: int, body: bytes = b"1") -> bytes:
    return b'{"msg":%b,"mid":%d,"gid":0}' % (body, mid)


def framed(*messages: bytes) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in messages)


class FakeComet:
    """Serves one connection after the other, each by its own script; `said` is how each device began."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.server.getsockname()[1]}"
        self.said: list[bytes] = []
        self.thread: threading.Thread | None = None

    def serve(self, *scripts: Script) -> None:
        self.thread = threading.Thread(target=self._serve, args=(scripts,), daemon=True)
        self.thread.start()

    def _serve(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            connection, _ = self.server.accept()
            with connection:
                connection.settimeout(20)
                self.said.append(connection.recv(1000))
                script(connection)

    def close(self) -> None:
        self.server.close()
        if self.thread is not None:
            self.thread.join(20)
            assert not self.thread.is_alive()


@pytest.fixture
def comet() -> Iterator[FakeComet]:
    comet = FakeComet()
    yield comet
    comet.close()


@pytest.fixture
def device(comet: FakeComet, monkeypatch: pytest.MonkeyPatch) -> Subscriber:
    monkeypatch.setattr(subscriber, "look_up", lambda web, key: comet.address)
    monkeypatch.setattr(subscriber, "history", lambda web, key, after, token: [])
    monkeypatch.setattr(subscriber, "FIRST_PAUSE_SECONDS", 0.01)
    return Subscriber("web:1", "kéy", "t", 30)


def says(*parts: bytes) -> Script:
    return lambda connection: connection.sendall(b"".join(parts))


def sub(cursor: int, token: bytes = b"t") -> bytes:
    version = gopush.__version__.encode()
    words = (b"sub", "kéy".encode(), b"30", token, version, b"%d" % cursor)
    return b"*6\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_frames_come_in_pieces_of_any_size(size: int) -> None:
    """protocol.md, section 1: replies are lines, a message is one bulk string."""
    stream = b"+h\r\n" + framed(message(16, b'"\r\n+h"'), message(32)) + b"-n\r\n"
    buffer = bytearray()
    found: list[bytes] = []
    for start in range(0, len(stream), size):
        buffer += stream[start : start + size]
        found.extend(frames(buffer))
    assert found == [b"+h", message(16, b'"\r\n+h"'), message(32), b"-n"]
    assert not buffer


@pytest.mark.parametrize(
    "garbage", [b"$-1\r\n", b"$x\r\n", b"$\r\n", b"$67108865\r\n", b"$%b\r\n" % (b"9" * 5000), b"h" * 32]
)
def test_what_is_no_frame_is_said_to_be_none(garbage: bytes) -> None:
    with pytest.raises(UnavailableError):
        list(frames(bytearray(garbage)))


def test_the_mid_is_the_messages_own_and_exact() -> None:
    assert mid_of(message(17000000000000016, b'{"mid":1,"gid":0}')) == 17000000000000016
    with pytest.raises(UnavailableError):
        mid_of(b"{}")


def test_subscribes_as_a_device_and_yields_messages(comet: FakeComet, device: Subscriber) -> None:
    """protocol.md, section 1: sub key heartbeat token version mid; lengths count bytes."""
    heard: list[str] = []
    device.tell = heard.append
    comet.serve(says(b"+h\r\n", framed(message(16), message(32))))
    received = device.messages()
    assert [next(received), next(received)] == [message(16), message(32)]
    assert comet.said == [sub(0)]
    assert heard == [f"subscribed to kéy at {comet.address}"]


def test_goes_to_the_next_web_node_where_one_does_not_answer(
    comet: FakeComet, device: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(web: Server, key: str) -> str:
        asked.append(web.address)
        if web.address == "web:1":
            raise UnavailableError("web:1 cannot be reached")
        return comet.address

    monkeypatch.setattr(subscriber, "look_up", look_up)
    device = Subscriber("web:1,web:2", "kéy", "t", 30)
    comet.serve(says(b"+h\r\n", framed(message(16))))
    assert next(device.messages()) == message(16)
    assert asked == ["web:1", "web:2"]


def test_many_dead_web_nodes_are_passed_quickly_and_each_round_waits_longer(
    comet: FakeComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    pauses: list[float] = []

    def look_up(web: Server, key: str) -> str:
        asked.append(web.address)
        if len(asked) < 23:
            raise UnavailableError("down")
        return comet.address

    monkeypatch.setattr(subscriber, "look_up", look_up)
    monkeypatch.setattr("time.sleep", pauses.append)
    webs = [f"web:{number}" for number in range(1, 11)]
    device = Subscriber(",".join(webs), "kéy", cursor=0)
    comet.serve(says(), says(b"+h\r\n", framed(message(16))))
    assert next(device.messages()) == message(16)
    assert asked == [*webs, *webs, *webs[:4]]
    rounds = [pauses.pop(9), pauses.pop(18), pauses.pop()]  # the last is for the comet, which has closed
    assert all(0.1 <= pause <= 0.2 for pause in pauses)
    assert [0.1 * 2**n <= pause <= 0.2 * 2**n for n, pause in enumerate(rounds)] == [True] * 3


def test_begins_with_what_is_new(comet: FakeComet, device: Subscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "history", lambda web, key, after, token: [message(16), message(48)])
    comet.serve(says(b"+h\r\n", framed(message(64))))
    assert next(device.messages()) == message(64)
    assert comet.said == [sub(48)]


def test_begins_after_the_mid_it_is_given(comet: FakeComet, device: Subscriber) -> None:
    device.cursor = 1600
    comet.serve(says(b"+h\r\n", framed(message(1616))))
    assert next(device.messages()) == message(1616)
    assert comet.said == [sub(1600)]


def test_a_closed_connection_is_resumed_after_the_last_message(comet: FakeComet, device: Subscriber) -> None:
    """Whatever ends a connection, and whatever comes twice: each message once."""
    comet.serve(
        says(b"+h\r\n", framed(message(16))),
        says(b"-n\r\n"),
        says(),
        says(b"+h\r\n$x\r\n"),
        says(b"+h\r\n", framed(message(16), message(32))),
    )
    received = device.messages()
    assert [next(received), next(received)] == [message(16), message(32)]
    assert comet.said == [sub(0), sub(16), sub(16), sub(16), sub(16)]


@pytest.mark.parametrize("cursor", [None, 0])
def test_who_was_subscribed_before_its_first_message_hears_of_a_gap(
    comet: FakeComet, device: Subscriber, cursor: int | None
) -> None:
    """protocol.md, section 10: from 0 on there is none; 15 is below every mid, and gopush rounds it to 16."""
    device.cursor = cursor
    comet.serve(says(), says(b"+h\r\n"), says(b"+h\r\n", framed(message(16))))
    assert next(device.messages()) == message(16)
    assert comet.said == [sub(0), sub(0), sub(15)]


def test_once_means_one_connection(comet: FakeComet, device: Subscriber) -> None:
    comet.serve(says(b"+h\r\n", framed(message(16))))
    received = device.messages(follow=False)
    assert next(received) == message(16)
    with pytest.raises(UnavailableError, match="closed the connection"):
        next(received)


def test_waits_until_there_is_a_comet(comet: FakeComet, device: Subscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [NoNodeError("none"), UnavailableError("down"), comet.address]

    def look_up(web: Server, key: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(subscriber, "look_up", look_up)
    comet.serve(says(b"+h\r\n", framed(message(16))))
    heard: list[str] = []
    device.tell = heard.append
    assert next(device.messages()) == message(16)
    assert heard[:2] == ["none; trying again", "down; trying again"]


@pytest.mark.parametrize("reply", [b"-a", b"-c", b"-p"])
def test_a_refusal_ends_it(comet: FakeComet, device: Subscriber, reply: bytes) -> None:
    """protocol.md, section 1: the replies that close."""
    comet.serve(says(reply + b"\r\n"))
    with pytest.raises(ParameterError, match=reply.decode()):
        next(device.messages())


def test_who_finds_the_key_full_comes_back_later(
    comet: FakeComet, device: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """protocol.md, section 1: the place may be held by the device's own connection, which is dead."""
    heard: list[str] = []
    pauses: list[float] = []
    device.tell = heard.append
    monkeypatch.setattr("time.sleep", pauses.append)
    comet.serve(says(b"-l\r\n"), says(b"+h\r\n", framed(message(16))), says(b"-l\r\n"))
    assert next(device.messages()) == message(16)
    full = f"{comet.address} refused: the key has as many connections as it may have (-l)"
    assert heard == [f"{full}; trying again", f"subscribed to kéy at {comet.address}"]
    assert 12 < pauses[0] <= 25
    with pytest.raises(UnavailableError, match="-l"):
        next(device.messages(follow=False))


def test_a_gap_is_reported(comet: FakeComet, device: Subscriber) -> None:
    heard: list[str] = []
    device.tell = heard.append
    comet.serve(says(b"+h\r\n+g\r\n", framed(message(16))))
    next(device.messages())
    assert "(+g)" in heard[-1]


def test_sends_heartbeats(comet: FakeComet, device: Subscriber) -> None:
    """protocol.md, section 1: the single byte `h` every `heartbeat` seconds, also while messages come."""
    device.heartbeat = 1
    heartbeats = []

    def script(connection: socket.socket) -> None:
        connection.sendall(b"+h\r\n")
        for mid in (16, 32):
            heartbeats.append(connection.recv(1))
            connection.sendall(b"+h\r\n" + framed(message(mid)))

    comet.serve(script)
    received = device.messages()
    assert [next(received), next(received)] == [message(16), message(32)]
    assert heartbeats == [b"h", b"h"]


def test_a_silent_comet_is_given_up(comet: FakeComet, device: Subscriber) -> None:
    device.heartbeat = 1
    silent = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(b"+h\r\n")
        silent.wait(20)

    comet.serve(script)
    with pytest.raises(UnavailableError, match="the comet does not answer heartbeats"):
        next(device.messages(follow=False))
    silent.set()
