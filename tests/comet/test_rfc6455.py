"""A strict reading of RFC 6455 by a client that breaks its rules on purpose (protocol.md, section 2)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    WebSocketClient,
    eventually,
    frame,
    opening,
    sending,
)
from tests.comet.wire import CometServer


@pytest.fixture
def client(server: CometServer, key: str) -> Iterator[WebSocketClient]:
    """A subscribed client, beside another one that whatever this one does must leave untouched."""
    with WebSocketClient(server.websocket) as client, WebSocketClient(server.websocket) as bystander:
        bystander.subscribe(f"{key}-bystander")
        yield client.subscribe(key)
        assert bystander.is_served()


def closing(code: int | None = None, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


# Each up to and with the first byte from which the violation is known.
VIOLATIONS = {
    **{f"reserved bits {rsv}": frame(TEXT, b"h", rsv=rsv)[:2] for rsv in range(1, 8)},
    "reserved bits of a ping": frame(PING, rsv=4)[:2],
    **{f"reserved opcode {opcode}": frame(opcode)[:2] for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"unmasked opcode {opcode}": frame(opcode, masked=False) for opcode in (TEXT, BINARY, PING, PONG, CLOSE)},
    "unmasked continuation": frame(TEXT, b"h", fin=False) + frame(CONTINUATION, masked=False),
    **{f"fragmented opcode {opcode}": frame(opcode, fin=False)[:2] for opcode in (CLOSE, PING, PONG)},
    **{f"126 bytes of opcode {opcode}": frame(opcode, length=126)[:2] for opcode in (CLOSE, PING, PONG)},
    **{f"64 KiB of opcode {opcode}": frame(opcode, length=65536)[:2] for opcode in (CLOSE, PING, PONG)},
    "close of one byte": frame(CLOSE, b"x")[:2],
    "continuation of nothing": frame(CONTINUATION, b"h")[:2],
    "continuation of a whole message": frame(TEXT, b"h") + frame(CONTINUATION, b"h")[:2],
    "a message within a message": frame(TEXT, b"h", fin=False) + frame(TEXT, b"h")[:2],
    "a binary message within a message": frame(TEXT, b"h", fin=False) + frame(BINARY, b"h")[:2],
    "a short length in two bytes": b"\x81\xfe\x00\x01" + bytes(4),
    "a short length in eight bytes": b"\x81\xff" + bytes(7) + b"\x01" + bytes(4),
    "a middle length in eight bytes": b"\x81\xff" + bytes(6) + b"\xff\xff" + bytes(4),
    "a length with the highest bit": b"\x81\xff\x80" + bytes(7) + bytes(4),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_reported_as_soon_as_it_is_known(client: WebSocketClient, name: str) -> None:
    """RFC 6455, sections 5.1, 5.2, 5.4, 5.5; 7.4.1: 1002."""
    client.send(VIOLATIONS[name])
    if name == "continuation of a whole message":
        assert client.message() == b"+h\r\n"
    assert client.closing()[0] == 1002


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_found_however_it_is_split(client: WebSocketClient, name: str) -> None:
    """RFC 6455, section 5.2: frames know nothing of segments."""
    client.send_bytewise(VIOLATIONS[name])
    if name == "continuation of a whole message":
        assert client.message() == b"+h\r\n"
    assert client.closing()[0] == 1002


@pytest.mark.parametrize("name", ["reserved opcode 3", "unmasked opcode 1", "reserved bits 1", "close of one byte"])
def test_nothing_is_read_after_a_violation(client: WebSocketClient, server: CometServer, name: str) -> None:
    """RFC 6455, section 7.1.7: no further data is processed; the close frame arrives all the same."""
    with sending(client, VIOLATIONS[name] + bytes(4) + (frame(TEXT, b"h") + frame(PING, b"p")) * 5000, 1):
        assert client.closing()[0] == 1002


# --- messages and fragments ---


@pytest.mark.parametrize(
    "fragments",
    [
        (b"h", b""),
        (b"", b"h"),
        (b"", b"", b"h", b"", b""),
    ],
)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_make_a_message(client: WebSocketClient, opcode: int, fragments: tuple[bytes, ...]) -> None:
    """RFC 6455, section 5.4: fragments, empty ones included."""
    for at, fragment in enumerate(fragments):
        client.send(frame(CONTINUATION if at else opcode, fragment, fin=at == len(fragments) - 1))
    assert client.message() == b"+h\r\n"
    assert client.is_served()


def test_control_frames_may_come_between_fragments(client: WebSocketClient) -> None:
    """RFC 6455, sections 5.4, 5.5: control frames may be injected in the middle of a fragmented message."""
    client.send(frame(TEXT, b"", fin=False) + frame(PING, b"between") + frame(PONG, b"unasked"))
    assert client.frame() == Frame(True, PONG, b"between")
    client.send(frame(CONTINUATION, b"h", fin=False) + frame(PING) + frame(CONTINUATION, b""))
    assert client.frame() == Frame(True, PONG, b"")
    assert client.message() == b"+h\r\n"


def test_a_close_between_fragments_closes(client: WebSocketClient) -> None:
    """RFC 6455, section 5.5.1."""
    client.send(frame(TEXT, b"h", fin=False) + closing(1000) + frame(CONTINUATION))
    assert client.closing() == (1000, b"")


def test_frames_may_be_split_at_any_byte(client: WebSocketClient) -> None:
    """RFC 6455, section 5.2: frames know nothing of segments."""
    for sent in (
        frame(TEXT, b"h"),
        frame(TEXT, b"", fin=False) + frame(PING, b"pp") + frame(CONTINUATION, b"h"),
        frame(PING, b"x" * 125) + frame(TEXT, b"h"),
    ):
        for at in range(1, len(sent)):
            client.send(sent[:at])
            time.sleep(0.0005)
            client.send(sent[at:])
            if len(sent) > len(frame(TEXT, b"h")):
                assert client.frame().opcode == PONG
            assert client.message() == b"+h\r\n"
    client.send_bytewise(frame(TEXT, b"h") * 3)
    assert [client.message() for _ in range(3)] == [b"+h\r\n"] * 3


@pytest.mark.parametrize(
    "payload",
    [b"\xff", b"\x80", b"\xc3", b"\xc3h", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80"],
)
@pytest.mark.parametrize("fragmented", [False, True])
def test_a_text_that_is_not_utf_8_is_reported(client: WebSocketClient, payload: bytes, fragmented: bool) -> None:
    """RFC 6455, section 8.1; 7.4.1: 1007."""
    if fragmented:
        for at in range(len(payload)):
            client.send(frame(CONTINUATION if at else TEXT, payload[at : at + 1], fin=False))
        client.send(frame(CONTINUATION))
    else:
        client.send(frame(TEXT, payload))
    assert client.closing()[0] == 1007


def test_a_binary_message_may_be_anything(client: WebSocketClient) -> None:
    """RFC 6455, section 5.6: binary is binary; to us it is just another message, which closes."""
    client.send(frame(BINARY, b"\xff"))
    assert client.closing() == (1000, b"")


def test_a_character_may_be_split_between_fragments(client: WebSocketClient) -> None:
    """RFC 6455, section 5.4: fragments need not end where characters do; the message is valid, but no heartbeat."""
    client.send(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\xbc"))
    assert client.closing() == (1000, b"")


# --- ping and pong ---


@pytest.mark.parametrize("payload", [b"", b"x", b"\xff\x00\xfe", b"x" * 124, b"x" * 125])
def test_a_ping_is_answered_with_its_payload(client: WebSocketClient, payload: bytes) -> None:
    """RFC 6455, sections 5.5.2, 5.5.3."""
    client.send(frame(PING, payload))
    assert client.frame() == Frame(True, PONG, payload)
    assert client.is_served()


def test_a_pong_that_nobody_asked_for_is_ignored(client: WebSocketClient) -> None:
    """RFC 6455, section 5.5.3: a response to an unsolicited Pong frame is not expected."""
    client.send(frame(PONG) + frame(PONG, b"x" * 125))
    assert client.is_served()


def test_a_thousand_pings_in_a_segment_are_answered_in_order(client: WebSocketClient) -> None:
    """RFC 6455, section 5.5.3."""
    client.send(b"".join(frame(PING, b"%d" % number) for number in range(1000)))
    assert [client.frame().payload for _ in range(1000)] == [b"%d" % number for number in range(1000)]
    assert client.is_served()


def test_pings_are_answered_before_the_subscription_is(server: CometServer) -> None:
    """RFC 6455, section 5.5.2: unless it already received a Close frame."""
    with WebSocketClient(server.websocket) as client:
        client.send(opening("/sub?key=k&heartbeat=30") + frame(PING, b"early"))
        client.until(b"\r\n\r\n")
        frames = {client.frame(), client.frame()}
        assert frames == {Frame(True, PONG, b"early"), Frame(True, TEXT, b"+h\r\n")}


def test_pings_of_a_client_that_never_reads_are_bounded(server: CometServer, key: str) -> None:
    """Nobody can make a comet hold what they do not read: it closes."""
    with WebSocketClient(server.websocket, rcvbuf=4096) as client:
        client.subscribe(key)
        with sending(client, frame(PING, b"x" * 125) * 100, 1000):
            eventually(lambda: server.subscribers(key) == 0)
        assert server.comet.counters.slow_closed == 1


def test_a_slow_reader_of_a_large_message_may_ping(server: CometServer, key: str) -> None:
    """A single message never closes, and neither does a ping beside it."""
    with WebSocketClient(server.websocket, rcvbuf=4096) as client:
        client.subscribe(key)
        body = b'"' + b"x" * (4 << 20) + b'"'
        mid = server.push(key, body)
        client.socket.recv(1, socket.MSG_PEEK)  # the message is on its way
        client.send(frame(PING, b"still there?") * 100)
        client.send(frame(TEXT, b"h"))
        assert client.message() == b'{"msg":%b,"mid":%d,"gid":0}' % (body, mid)
        assert [client.frame() for _ in range(100)] == [Frame(True, PONG, b"still there?")] * 100
        assert client.message() == b"+h\r\n"


# --- closing ---


def test_an_empty_close_is_answered(client: WebSocketClient) -> None:
    """RFC 6455, section 5.5.1: it MUST send a Close frame in response."""
    client.send(closing())
    assert client.closing() in [(None, b""), (1000, b"")]


VALID_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", VALID_CODES)
@pytest.mark.parametrize("reason", [b"", "bis später 🔑".encode(), b"x" * 123])
def test_a_close_is_echoed(client: WebSocketClient, code: int, reason: bytes) -> None:
    """RFC 6455, section 5.5.1: the endpoint typically echos the status code it received."""
    client.send(closing(code, reason))
    assert client.closing()[0] == code


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
@pytest.mark.parametrize("reason", [b"", b"why"])
def test_a_close_of_an_invalid_code_is_a_violation(client: WebSocketClient, code: int, reason: bytes) -> None:
    """RFC 6455, sections 7.4.1, 7.4.2; 1002."""
    client.send(closing(code, reason))
    assert client.closing()[0] == 1002


@pytest.mark.parametrize("reason", [b"\xff", b"\xc3", b"ok\xed\xa0\x80", b"\xf0\x9f\x94"])
def test_a_reason_that_is_not_utf_8_is_reported(client: WebSocketClient, reason: bytes) -> None:
    """RFC 6455, section 5.5.1: the body may contain UTF-8-encoded data; 1007."""
    client.send(closing(1000, reason))
    assert client.closing()[0] == 1007


@pytest.mark.parametrize("more", [frame(TEXT, b"h"), frame(PING, b"p"), closing(1001), frame(3), b"\x81", b"x" * 9999])
@pytest.mark.parametrize("together", [True, False])
def test_nothing_is_read_after_a_close(client: WebSocketClient, more: bytes, together: bool) -> None:
    """RFC 6455, section 5.5.1: after a Close frame no more data is processed, and one Close frame is sent."""
    if together:
        client.send(closing(1000) + more)
        assert client.closing() == (1000, b"")
    else:
        client.send(closing(1000))
        received = client.frame()
        client.send(more)
        assert received == Frame(True, CLOSE, struct.pack("!H", 1000))
        assert client.rest() == b""


def test_no_message_follows_a_close(client: WebSocketClient, server: CometServer, key: str) -> None:
    """RFC 6455, section 5.5.1: the application MUST NOT send any more data frames after a Close frame."""
    client.send(closing(1001))
    assert client.frame().opcode == CLOSE
    server.push(key, b"1")
    assert client.rest() == b""


def test_the_answer_to_our_close_is_taken(client: WebSocketClient, server: CometServer, key: str) -> None:
    """RFC 6455, section 7.1.2: the closing handshake that we begin."""
    client.send(frame(TEXT, b"x"))
    assert client.frame() == Frame(True, CLOSE, struct.pack("!H", 1000))
    client.send(closing(1000))
    assert client.rest() == b""
    client.close()
    eventually(lambda: server.subscribers(key) == 0)
