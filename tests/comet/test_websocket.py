"""WebSocket clients, as they see a comet (protocol.md, section 2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from gopush.message.store import StoreSettings
from gopush.model import mid_at
from gopush.net.limits import ConnectionSettings
from tests.clients import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    TcpClient,
    WebSocketClient,
    eventually,
    frame,
    opening,
    sending,
)
from tests.comet.conftest import Start
from tests.comet.wire import CometServer


@pytest.fixture
def client(server: CometServer) -> Iterator[WebSocketClient]:
    with WebSocketClient(server.websocket) as client:
        yield client


@pytest.fixture
def bystander(server: CometServer, key: str) -> Iterator[WebSocketClient]:
    """Another client, which whatever this one does must leave untouched."""
    with WebSocketClient(server.websocket) as bystander:
        bystander.subscribe(f"{key}-bystander")
        yield bystander
        assert bystander.is_served()


# --- the handshake (its cases are in test_handshake.py) ---


def test_the_handshake_is_answered_and_then_the_subscription(client: WebSocketClient, key: str) -> None:
    """protocol.md, section 2: `GET /sub?key=K&heartbeat=30`; `+h` as one text message."""
    client.send(opening(f"/sub?key={key}&heartbeat=30"))
    head = client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert f"\r\nSec-WebSocket-Accept: {ACCEPT}\r\n".encode() in head
    assert client.read(6) == b"\x81\x04+h\r\n"
    assert client.is_quiet()


def test_a_client_that_asks_for_a_sub_protocol_is_served(
    client: WebSocketClient, server: CometServer, key: str
) -> None:
    """protocol.md, section 2: it is selected, and all else is as ever."""
    client.send(opening(f"/sub?key={key}&heartbeat=30&ver=1", Sec_WebSocket_Protocol="chat, superchat"))
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n" in client.until(b"\r\n\r\n")
    assert client.message() == b"+h\r\n"
    mid = server.push(key, b'"x"')
    assert client.message() == b'{"msg":"x","mid":%d,"gid":0}' % mid
    assert client.is_served()
    client.send(frame(PING, b"p"))
    assert client.frame().payload == b"p"
    client.send(frame(CLOSE, b"\x03\xe8"))
    assert client.closing() == (1000, b"")


def test_a_handshake_may_come_byte_by_byte(client: WebSocketClient, key: str) -> None:
    """protocol.md, section 2: however the segments fall; the heartbeat behind it too."""
    client.send_bytewise(opening(f"/sub?key={key}&heartbeat=30") + frame(TEXT, b"h"))
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    assert [client.message(), client.message()] == [b"+h\r\n"] * 2


def test_heartbeats_may_share_a_segment_with_the_handshake(client: WebSocketClient, key: str) -> None:
    """protocol.md, section 1: several may arrive in one segment, also right behind the subscription."""
    client.send(opening(f"/sub?key={key}&heartbeat=30") + frame(TEXT, b"h") * 50)
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    assert [client.message() for _ in range(51)] == [b"+h\r\n"] * 51
    assert client.is_quiet(0.05)


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        (opening("/"), b"404"),
        (opening("/sub", method="POST"), b"405"),
        (opening("/sub", Sec_WebSocket_Version="8"), b"426"),
        (opening("/sub", Upgrade=None), b"426"),
        (opening("/sub", Sec_WebSocket_Key="x"), b"400"),
        (opening("/sub", X="x" * 9000), b"431"),
        (b"x" * 9000, b"431"),
        (b"*3\r\n$3\r\nsub\r\n\r\n", b"400"),
    ],
)
@pytest.mark.parametrize("more", [b"", b"x" * 100_000])
def test_a_refused_handshake_is_reported_and_closed(
    server: CometServer, bystander: WebSocketClient, handshake: bytes, status: bytes, more: bytes
) -> None:
    """protocol.md, section 2: 404, 405, 426, 400: the answer arrives, then the end, whatever the client sends on."""
    with WebSocketClient(server.websocket) as client, sending(client, handshake + more, 1):
        head, _, body = client.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %b " % status)
        assert body == b""


@pytest.mark.parametrize("sent", [b"", b"GET /sub", opening("/sub?key=k&heartbeat=30")[:-1]])
def test_the_handshake_must_come_within_five_seconds(start: Start, sent: bytes) -> None:
    """protocol.md, section 1: the first complete request must arrive within 5 s, else close without a reply."""
    server = start()
    with WebSocketClient(server.websocket) as client:
        client.send(sent)
        eventually(lambda: server.comet.counters.connections_added == 1)
        server.leap(4.9)
        assert client.is_quiet(0.6)
        server.leap(1.1)
        assert client.rest() == b""


# --- parameters ---


@pytest.mark.parametrize(
    "query",
    [
        "key=K&heartbeat=30",
        "heartbeat=30&key=K",
        "key=K&heartbeat=%2B30",
        "key=K&heartbeat=86400&token=&ver=&unknown=1",
        "key=K&heartbeat=30&token=t&ver=1.0.5",
        "key=K&heartbeat=30&mid=0",
        "&&key=K&&heartbeat=30&",
        "%6Bey=K&heartbeat=%33%30",
        "key=K&heartbeat=30&key=&heartbeat=1",
    ],
)
def test_these_queries_subscribe(client: WebSocketClient, server: CometServer, key: str, query: str) -> None:
    """protocol.md, section 2: `key=K&heartbeat=30[&token=T][&ver=V][&mid=M]`; section 4: of repeated names the first
    counts, unknown names are ignored."""
    client.open(query.replace("K", key))
    assert client.message() == b"+h\r\n"
    assert server.subscribers(key) == 1


@pytest.mark.parametrize(
    ("encoded", "name"),
    [
        ("a+b", "a b"),
        ("a%20b", "a b"),
        ("a%2Bb", "a+b"),
        (quote("ключ-🔑"), "ключ-🔑"),
        ("сырой", "сырой"),
        ("%D0%BA", "к"),
        ("a;b", "a;b"),
        ("a%26b%3D", "a&b="),
    ],
)
def test_the_key_is_form_encoded(client: WebSocketClient, server: CometServer, encoded: str, name: str) -> None:
    """protocol.md, section 4: queries are form-encoded: `+` is a blank; UTF-8 in keys, percent-encoded or not."""
    client.open(f"key={encoded}&heartbeat=30&ver=1")
    assert client.message() == b"+h\r\n"
    mid = server.push(name, b"1")
    assert client.message() == b'{"msg":1,"mid":%d,"gid":0}' % mid


@pytest.mark.parametrize(
    "query",
    [
        *("", "key=k", "heartbeat=30", "key=&heartbeat=30", "key&heartbeat=30", "KEY=k&heartbeat=30"),
        *("key=&heartbeat=30&key=k", "key=k&heartbeat=1&heartbeat=30", "key=k&heartbeat=", "key=k&heartbeat"),
        *("key=%FF&heartbeat=30", "key=%&heartbeat=30", "key=%zz&heartbeat=30", "key=a%00b&heartbeat=30"),
        *("key=%ED%A0%80&heartbeat=30", "key=a%0Ab&heartbeat=30", f"key={'k' * 256}&heartbeat=30"),
        *(f"key=k&heartbeat={heartbeat}" for heartbeat in ("29", "-30", "+30", "30.0", "3_0", "%D9%A3%D9%A0", 2**63)),
        *(f"key=k&heartbeat=30&mid={mid}" for mid in ("", "x", "1.5", "+5", "1_0", 2**63, "%D9%A3")),
        f"key=k&heartbeat=30&mid={mid_at(4e9)}",
        "key=k&heartbeat=30&token=%FF",
        "key=k&heartbeat=30&token=a%0Ab",
        "key=k&heartbeat=30&ver=%FF",
    ],
)
def test_wrong_parameters_are_reported_as_a_message(
    client: WebSocketClient, bystander: WebSocketClient, query: str
) -> None:
    """protocol.md, sections 1 and 2: `-p`; parameter errors come as a message after the 101; then close."""
    client.open(query)
    assert client.message() == b"-p\r\n"
    assert client.closing() == (1000, b"")


def test_a_refusal_arrives_whatever_follows(server: CometServer, bystander: WebSocketClient) -> None:
    """protocol.md, section 2: `-p` as a message, then close, also while the client sends on."""
    everything = opening("/sub") + frame(TEXT, b"h") * 20_000
    with WebSocketClient(server.websocket) as client, sending(client, everything, 1):
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert client.message() == b"-p\r\n"
        assert client.closing() == (1000, b"")


def test_a_token_is_wanted_where_auth_is_on(start: Start) -> None:
    """protocol.md, section 1: `-c` before `-a`, as messages."""
    server = start(auth=True)
    server.create_token("created", "a b")
    for query, answer in [
        ("key=unknown&token=a+b", b"-c\r\n"),
        ("key=created&token=bad", b"-a\r\n"),
        ("key=created", b"-a\r\n"),
    ]:
        with WebSocketClient(server.websocket) as client:
            client.open(f"{query}&heartbeat=30")
            assert client.message() == answer
            assert client.closing() == (1000, b"")
    with WebSocketClient(server.websocket) as client:
        client.subscribe("created", "&token=a+b")


def test_a_key_of_another_comet_and_one_too_many_are_reported(start: Start) -> None:
    """protocol.md, section 1: `-n` and `-l`, as messages."""
    server = start(foreign=True, max_subscribers=1)
    ours, others = (
        next(name for name in map(str, range(100)) if server.owner(name).node == node) for node in ("node1", "node2")
    )
    with WebSocketClient(server.websocket) as first:
        first.subscribe(ours)
        for name, answer in [(others, b"-n\r\n"), (ours, b"-l\r\n")]:
            with WebSocketClient(server.websocket) as client:
                client.open(f"key={name}&heartbeat=30")
                assert client.message() == answer
                assert client.closing() == (1000, b"")
        assert first.is_served()


# --- messages ---


@pytest.mark.parametrize("more", ["", "&ver=", "&ver=&ver=1"])
def test_who_gives_no_version_gets_the_text(client: WebSocketClient, server: CometServer, key: str, more: str) -> None:
    """protocol.md, section 3: over WebSocket: `ver` absent or empty: `msg` is a JSON string with the pushed text."""
    client.subscribe(key, more)
    mid = server.push(key, b'{"a":\n"\xc3\xbc"}')
    assert client.message() == b'{"msg":"{\\"a\\":\\n\\"\xc3\xbc\\"}","mid":%d,"gid":0}' % mid


def test_who_gives_a_version_gets_raw_json(client: WebSocketClient, server: CometServer, key: str) -> None:
    """protocol.md, section 2: a push is one text message holding the JSON alone; section 3: raw."""
    client.subscribe(key, "&ver=0")
    mid = server.push(key, b'{"a":\n1e400}')
    assert client.message() == b'{"msg":{"a":1e400},"mid":%d,"gid":0}' % mid
    assert client.is_quiet(0.05)


def test_messages_of_one_turn_stay_messages(client: WebSocketClient, server: CometServer, key: str) -> None:
    """protocol.md, section 2: a push is one text message, also where several go out together."""
    mids = [server.push(key, b"%d" % number) for number in range(20)]
    client.subscribe(key, "&ver=1&mid=0")
    for number, mid in enumerate(mids):
        assert client.message() == b'{"msg":%d,"mid":%d,"gid":0}' % (number, mid)
    assert client.is_served()


@pytest.mark.parametrize("size", [100, 125, 126, 65_535, 65_536, 64 << 10, 1 << 20])
def test_messages_of_any_size_pass(server: CometServer, key: str, size: int) -> None:
    """protocol.md, section 9: through small buffers too; RFC 6455, section 5.2: the shortest form of the length."""
    clients = [WebSocketClient(server.websocket, rcvbuf=4096 if slow else 0).subscribe(key) for slow in (0, 1)]
    frame_of_nothing = len(b'{"msg":"","mid":%d,"gid":0}' % mid_at(time.time()))
    body = b'"' + b"x" * (size - frame_of_nothing) + b'"'
    mid = server.push(key, body)
    for client in clients:
        message = client.message()
        assert message == b'{"msg":%b,"mid":%d,"gid":0}' % (body, mid)
        assert len(message) == size
        assert client.is_served()
        client.close()


def test_both_protocols_share_a_key(client: WebSocketClient, server: CometServer, key: str) -> None:
    """protocol.md, sections 1 and 2: one key, each client in its own form."""
    with TcpClient(server.tcp) as other:
        other.subscribe(key, "30", "", "1")
        client.subscribe(key, "")
        mid = server.push(key, b'"x"')
        assert other.message() == b'{"msg":"x","mid":%d,"gid":0}' % mid
        assert client.message() == b'{"msg":"\\"x\\"","mid":%d,"gid":0}' % mid


def test_a_mid_brings_what_came_after_it(start: Start) -> None:
    """protocol.md, section 2: `&mid=M`: `+h`, `+g` where messages were trimmed away, the backlog, what is live."""
    server = start(StoreSettings(store=2))
    mids = [server.push("k", b"%d" % number) for number in range(4)]
    with WebSocketClient(server.websocket) as client:
        client.subscribe("k", f"&ver=1&mid={mids[0]}")
        assert client.message() == b"+g\r\n"
        assert client.message() == b'{"msg":2,"mid":%d,"gid":0}' % mids[2]
        assert client.message() == b'{"msg":3,"mid":%d,"gid":0}' % mids[3]
        mid = server.push("k", b"4")
        assert client.message() == b'{"msg":4,"mid":%d,"gid":0}' % mid
        assert client.is_served()


# --- heartbeats, and what is none ---


def test_each_heartbeat_is_answered(client: WebSocketClient, key: str) -> None:
    """protocol.md, section 2: the client's heartbeat is the message `h`."""
    client.subscribe(key)
    for _ in range(3):
        assert client.is_served()
    client.send(frame(BINARY, b"h"))
    assert client.message() == b"+h\r\n"
    assert client.is_quiet(0.05)


def test_silence_closes(start: Start) -> None:
    """protocol.md, section 1: silence of `heartbeat + 5` s closes; pings are no heartbeats."""
    server = start()
    with WebSocketClient(server.websocket) as silent, WebSocketClient(server.websocket) as alive:
        silent.subscribe("k")
        alive.subscribe("k")
        server.leap(34.9)
        assert alive.is_served()
        silent.send(frame(PING))
        assert silent.frame().payload == b""
        assert silent.is_quiet(0.6)
        server.leap(1.1)
        assert silent.rest() == b""
        assert alive.is_served()


@pytest.mark.parametrize("payload", [b"", b"H", b"hh", b"h\r\n", b"x", b"+h\r\n", "ü".encode(), b"h" * 1024])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_any_other_message_closes(
    client: WebSocketClient, bystander: WebSocketClient, key: str, opcode: int, payload: bytes
) -> None:
    """protocol.md, section 2: any other client message closes without a text reply."""
    client.subscribe(key)
    client.send(frame(opcode, payload))
    assert client.closing() == (1000, b"")


def test_nothing_behind_another_message_is_read(client: WebSocketClient, key: str) -> None:
    """protocol.md, section 2: it closes; heartbeats before it are answered, those behind it are not."""
    client.subscribe(key)
    client.send(frame(TEXT, b"h") + frame(TEXT, b"x") + frame(TEXT, b"h") + frame(PING, b"p"))
    assert client.message() == b"+h\r\n"
    assert client.closing() == (1000, b"")


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, length=1025),
        frame(BINARY, length=1025),
        frame(TEXT, length=65_536),
        frame(TEXT, length=1 << 30),
        frame(TEXT, length=(1 << 63) - 1),
        frame(TEXT, b"x" * 1024, fin=False) + frame(CONTINUATION, length=1),
        frame(TEXT, b"x" * 512, fin=False) + frame(CONTINUATION, b"x" * 512, fin=False) + frame(CONTINUATION, length=1),
    ],
)
def test_too_long_a_message_closes_as_soon_as_its_length_is_known(
    client: WebSocketClient, bystander: WebSocketClient, key: str, sent: bytes
) -> None:
    """protocol.md, section 2: anything over 1 KB, whole or in fragments; RFC 6455, section 7.4.1: 1009."""
    client.subscribe(key)
    client.send(sent)
    assert client.closing()[0] == 1009


def test_too_long_a_message_is_reported_while_it_comes(
    server: CometServer, bystander: WebSocketClient, key: str
) -> None:
    """protocol.md, section 2: it closes; the word arrives, and 50 MB are not kept."""
    with WebSocketClient(server.websocket) as client:
        client.subscribe(key)
        client.send(frame(TEXT, length=1 << 30))
        with sending(client, b"x" * (1 << 16), 800):
            assert client.closing()[0] == 1009


def test_what_comes_after_the_end_is_not_kept(client: WebSocketClient, server: CometServer, key: str) -> None:
    """protocol.md, section 2: bounded, whatever a client sends when it was told to go."""
    client.subscribe(key)
    (session,) = server.sessions(key)
    client.send(frame(TEXT, length=1 << 30))
    assert client.closing()[0] == 1009
    client.send(b"x" * 30_000)
    client.wait_until_taken()
    assert session.wire.data == b""


def test_fragments_without_end_hold_nothing(client: WebSocketClient, server: CometServer, key: str) -> None:
    """protocol.md, section 2: bounded, however many empty fragments come."""
    client.subscribe(key)
    client.send(frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 5000)
    client.send(frame(PING, b"done"))
    assert client.frame().payload == b"done"
    (session,) = server.sessions(key)
    assert session.wire.message_data == []
    client.send(frame(CONTINUATION, b"h"))
    assert client.message() == b"+h\r\n"


def test_who_does_not_close_is_closed(start: Start) -> None:
    """protocol.md, section 2: it closes, also where the client never answers the close frame."""
    server = start()
    for last in (frame(TEXT, b"x"), frame(3), frame(CLOSE)):
        removed = server.comet.counters.connections_removed
        with WebSocketClient(server.websocket) as client:
            client.subscribe("k")
            client.send(last)
            client.closing()
            client.send(frame(TEXT, b"h"))
            assert server.comet.counters.connections_removed == removed
            server.leap(6)
            eventually(lambda: server.comet.counters.connections_removed == removed + 1)  # noqa: B023


def test_a_client_that_goes_is_forgotten(client: WebSocketClient, server: CometServer, key: str) -> None:
    """protocol.md, section 6: `connection` and `channel`: current."""
    client.subscribe(key)
    assert server.subscribers(key) == 1
    client.close()
    eventually(lambda: server.subscribers(key) == 0)


def test_an_idle_connection_holds_no_handshake(client: WebSocketClient, server: CometServer, key: str) -> None:
    """What a handshake and heartbeats leave behind is small: no header field, no future, no timer."""
    client.subscribe(key)
    assert client.is_served()
    (session,) = server.sessions(key)
    left = {name: value for name, value in vars(session.wire).items() if value not in (None, b"", False, [])}
    left = {name: value for name, value in left.items() if not isinstance(value, (int, bool))}
    assert set(left) == {"_comet", "_session", "factory", "send", "transport"}


def test_pages_of_other_sites_are_answered_403_where_sites_are_listed(start: Start, key: str) -> None:
    """protocol.md, section 2: Origin may be absent; by default any is allowed."""
    server = start(connections=ConnectionSettings(origins=("https://www.example.org",)))
    target = f"/sub?key={key}&heartbeat=30&ver=1"
    for fields in ({}, {"Origin": "https://www.example.org"}):
        with WebSocketClient(server.websocket) as client:
            client.send(opening(target, **fields))
            assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
    with WebSocketClient(server.websocket) as client:
        client.send(opening(target, Origin="https://evil.example"))
        assert client.rest().startswith(b"HTTP/1.1 403")
    assert server.comet.counters.refused_origin == 1
