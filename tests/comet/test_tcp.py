"""TCP clients, byte for byte as they see a comet (protocol.md, section 1)."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator

import pytest

from gopush.comet.settings import SubscriberSettings
from gopush.message.store import StoreSettings
from gopush.model import mid_at
from tests.clients import TcpClient, WebSocketClient, eventually, request, sending
from tests.comet.conftest import Start
from tests.comet.wire import CometServer, in_reactor

SUBSCRIBE = request("sub", "Terry-Mao", "30", "token", "1.0.5")


@pytest.fixture
def client(server: CometServer) -> Iterator[TcpClient]:
    with TcpClient(server.tcp) as client:
        yield client


@pytest.fixture
def bystander(server: CometServer, key: str) -> Iterator[TcpClient]:
    """Another client, which whatever this one does must leave untouched."""
    with TcpClient(server.tcp) as bystander:
        bystander.subscribe(f"{key}-bystander")
        yield bystander
        assert bystander.is_served()


# --- subscribing ---


def test_the_request_of_the_documentation_is_answered(client: TcpClient) -> None:
    """protocol.md, section 1: the example, and `+h`: subscribed (first one)."""
    assert SUBSCRIBE == b"*5\r\n$3\r\nsub\r\n$9\r\nTerry-Mao\r\n$2\r\n30\r\n$5\r\ntoken\r\n$5\r\n1.0.5\r\n"
    client.send(SUBSCRIBE)
    assert client.read(4) == b"+h\r\n"
    assert client.is_quiet()


@pytest.mark.parametrize("more", [(), ("",), ("token",), ("token", ""), ("", "1.0.5"), ("token", "1.0.5", "0")])
def test_the_arguments_after_the_heartbeat_may_be_left_out(client: TcpClient, key: str, more: tuple[str, ...]) -> None:
    """protocol.md, section 1: 3 to 5 elements in the original, the sixth (`mid`) is ours."""
    client.subscribe(key, "30", *more)


def test_a_request_may_come_byte_by_byte(client: TcpClient, server: CometServer, key: str) -> None:
    """protocol.md, section 1: however the segments fall; the heartbeats behind it too."""
    client.send_bytewise(request("sub", key, "30") + b"hh")
    assert client.read(12) == b"+h\r\n" * 3


@pytest.mark.parametrize("at", range(1, len(request("sub", "k", "30"))))
def test_a_request_may_be_split_anywhere(client: TcpClient, at: int) -> None:
    """protocol.md, section 1: however the segments fall."""
    whole = request("sub", "k", "30")
    client.send(whole[:at])
    time.sleep(0.002)
    client.send(whole[at:])
    assert client.read(4) == b"+h\r\n"


@pytest.mark.parametrize("heartbeat", ["30", "+30", "030", "31", "86400", str(2**63 - 1), "+" + str(2**63 - 1)])
def test_a_heartbeat_is_digits_after_one_plus_at_most(client: TcpClient, key: str, heartbeat: str) -> None:
    """protocol.md, section 1: ASCII digits, optionally after one `+`, at most 2^63-1; 86400 must work."""
    client.subscribe(key, heartbeat)


@pytest.mark.parametrize("mid", ["0", "1", "-1", "+5", "16000000000000000", str(-(2**63))])
def test_a_mid_is_a_decimal_int64(client: TcpClient, key: str, mid: str) -> None:
    """protocol.md, section 1: `mid` is a decimal int64."""
    client.subscribe(key, "30", "", "1", mid)


@pytest.mark.parametrize("name", ["ключ-🔑", "a b", "k" * 255, "é" * 127, "a,b", '"', "%00"])
def test_a_key_is_any_text(client: TcpClient, server: CometServer, name: str) -> None:
    """protocol.md, section 1: `len` counts bytes; a key may be UTF-8."""
    client.subscribe(name, "30", "", "1")
    mid = server.push(name, b"1")
    assert client.message() == b'{"msg":1,"mid":%d,"gid":0}' % mid


# --- refusals ---

WRONG_PARAMETERS = {
    "unknown command": request("pub", "k", "30"),
    "command in capitals": request("SUB", "k", "30"),
    "empty command": request("", "k", "30"),
    "no argument": b"*1\r\n$3\r\nsub\r\n",
    "one argument": b"*2\r\n$3\r\nsub\r\n$1\r\nk\r\n",
    "empty key": request("sub", "", "30"),
    "key with a line break": request("sub", "a\nb", "30"),
    "key with a NUL": request("sub", "a\0b", "30"),
    "key that is not UTF-8": request("sub", b"a\xff", "30"),
    "key of half a character": request("sub", "é".encode()[:1], "30"),
    "key of a surrogate": request("sub", b"\xed\xa0\x80", "30"),
    "key of 256 bytes": request("sub", "k" * 256, "30"),
    "token with a line break": request("sub", "k", "30", "a\r\nb"),
    **{
        f"heartbeat {heartbeat!r}": request("sub", "k", heartbeat)
        for heartbeat in (
            *("", "29", "0", "-30", "++30", "+", "+-30", "30.0", "3e1", " 30", "30 ", "3_0", "0x1e", "abc", "30s"),
            *("\u0663\u0660", "\uff13\uff10", "\u00b2", str(2**63), "9" * 32, "0" * 30),
        )
    },
    **{
        f"mid {mid!r}": request("sub", "k", "30", "t", "1", mid)
        for mid in ("", "x", "1.0", " 1", "1_0", "٣", "--1", str(2**63), str(-(2**63) - 1), "9" * 32, "0x10", "1e3")
    },
}


@pytest.mark.parametrize("name", WRONG_PARAMETERS)
def test_wrong_parameters_are_reported(client: TcpClient, bystander: TcpClient, name: str) -> None:
    """protocol.md, section 1: `-p`: unknown command, fewer than 2 arguments, empty key, bad heartbeat or below 30,
    bad `mid`; then close."""
    client.send(WRONG_PARAMETERS[name])
    assert client.rest() == b"-p\r\n"


def test_a_length_in_characters_is_never_misread(client: TcpClient) -> None:
    """protocol.md, section 1: the Java SDK sends the number of characters: such a key is refused with `-p`."""
    client.send("*3\r\n$3\r\nsub\r\n$4\r\nключ\r\n$2\r\n30\r\n".encode())
    assert client.rest() == b"-p\r\n"


# Each up to and with the first byte that cannot belong to a request: there and then it is refused.
MALFORMED = {
    "another prefix": b"$",
    "plain text": b"s",
    "HTTP": b"G",
    "TLS": b"\x16",
    "NUL": b"\0",
    "CR first": b"\r",
    "LF first": b"\n",
    "a heartbeat first": b"h",
    "count not a number": b"*a",
    "count below zero": b"*-",
    "count with a plus": b"*+",
    "count with a blank": b"* ",
    "count empty": b"*\r",
    "count 0": b"*0",
    "count 1": b"*1",
    "count 2": b"*2",
    "count 7": b"*7",
    "count of two digits": b"*33",
    "count, then LF without CR": b"*3\n",
    "count, then CR without LF": b"*3\r$",
    "count, then CR CR": b"*3\r\r",
    "argument of another prefix": b"*3\r\n*",
    "argument without a prefix": b"*3\r\n3",
    "argument of a bulk length -1": b"*3\r\n$-",
    "length empty": b"*3\r\n$\r",
    "length not a number": b"*3\r\n$x",
    "length with a blank": b"*3\r\n$ ",
    "length in hexadecimal": b"*3\r\n$0x",
    "length, then LF without CR": b"*3\r\n$3\n",
    "length, then CR without LF": b"*3\r\n$3\rs",
    "length of a command too big": b"*3\r\n$9",
    "length of a key too big": b"*3\r\n$3\r\nsub\r\n$256",
    "length of a heartbeat too big": b"*3\r\n$3\r\nsub\r\n$1\r\nk\r\n$33",
    "length of a token too big": b"*4\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$4097",
    "length of a version too big": b"*5\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$1\r\nt\r\n$65",
    "length of a mid too big": b"*6\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$1\r\nt\r\n$1\r\n1\r\n$33",
    "length of many zeros": b"*3\r\n$000003",
    "length of 1073 for a key": b"*3\r\n$3\r\nsub\r\n$1073",
    "length of 18 for a command": b"*3\r\n$18",
    "a byte after the argument": b"*3\r\n$3\r\nsubx",
    "LF after the argument": b"*3\r\n$3\r\nsub\n",
    "CR without LF after the argument": b"*3\r\n$3\r\nsub\rx",
    "argument shorter than it says": b"*3\r\n$4\r\nsub\r\n",
    "an empty argument with a byte": b"*3\r\n$0\r\nx",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_framing_is_refused_at_its_first_byte(client: TcpClient, bystander: TcpClient, name: str) -> None:
    """protocol.md, section 1: bounded parser that refuses what cannot belong to a request no later than at the
    end of its line, or as soon as the line is longer than any may be: `-p`."""
    client.send(MALFORMED[name])
    assert client.rest() == b"-p\r\n"


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_framing_is_no_sooner_refused(server: CometServer, name: str) -> None:
    """protocol.md, section 1: what stands before that byte belongs to a request, however it is split."""
    malformed = MALFORMED[name]
    with TcpClient(server.tcp) as client:
        client.send(malformed[:-1])
        assert client.is_quiet(0.02)
        client.send(malformed[-1:])
        assert client.rest() == b"-p\r\n"


@pytest.mark.parametrize("malformed", [*MALFORMED.values(), request("pub", "k", "30")], ids=[*MALFORMED, "no sub"])
def test_a_refusal_arrives_whatever_follows(server: CometServer, bystander: TcpClient, malformed: bytes) -> None:
    """protocol.md, section 1: the reply, then the end; what is sent in vain makes no reset that overtakes it."""
    with TcpClient(server.tcp) as client, sending(client, malformed + b"x" * 100_000, 1):
        assert client.rest() == b"-p\r\n"


@pytest.mark.parametrize("start_of_it", [b"", b"*", b"*3\r\n$", b"*3\r\n$3\r\nsub\r\n$255\r\n"])
def test_fifty_megabytes_are_refused_early(server: CometServer, bystander: TcpClient, start_of_it: bytes) -> None:
    """protocol.md, section 1: no input may hold more than a few KB before `sub` is accepted."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TcpClient(server.tcp) as client:
        client.send(start_of_it)
        with sending(client, b"x" * (1 << 16), 800):
            assert client.rest() == b"-p\r\n"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB


def test_nothing_is_reported_twice(client: TcpClient) -> None:
    """protocol.md, section 1: `-p`, close; another request behind it is not read."""
    client.send(request("pub", "k", "30") + SUBSCRIBE)
    assert client.rest() == b"-p\r\n"


def test_who_leaves_in_the_middle_of_a_request_is_forgotten(server: CometServer, bystander: TcpClient) -> None:
    """protocol.md, section 1: whatever a client does leaves others untouched."""
    removed = server.comet.counters.connections_removed
    for data in (b"", b"*3\r\n$3\r\nsu", SUBSCRIBE):
        with TcpClient(server.tcp) as client:
            client.send(data)
    eventually(lambda: server.comet.counters.connections_removed >= removed + 3)


def test_a_token_is_wanted_where_auth_is_on(start: Start) -> None:
    """protocol.md, section 1: `-c`: nobody created this key, decided before `-a`: the token is missing or refused."""
    server = start(auth=True)
    server.create_token("created", "good")
    server.push("kept", b"1")
    for arguments, answer in [
        (("unknown", "30", "good"), b"-c\r\n"),
        (("unknown", "30"), b"-c\r\n"),
        (("created", "30", "bad"), b"-a\r\n"),
        (("created", "30", ""), b"-a\r\n"),
        (("created", "30"), b"-a\r\n"),
        (("kept", "30", "good"), b"-a\r\n"),
    ]:
        with TcpClient(server.tcp) as client:
            client.send(request("sub", *arguments))
            assert client.rest() == answer
    with TcpClient(server.tcp) as client:
        client.subscribe("created", "30", "good")
        assert client.is_served()


def test_heartbeats_wait_for_the_token_to_be_checked(start: Start) -> None:
    """protocol.md, section 1: heartbeats may arrive right behind `sub`, also where the answer takes its time."""
    server = start(auth=True)
    server.create_token("created", "good")
    with TcpClient(server.tcp) as client:
        client.send(request("sub", "created", "30", "good") + b"hhh")
        assert client.read(16) == b"+h\r\n" * 4


def test_a_token_is_ignored_where_auth_is_off(client: TcpClient, key: str) -> None:
    """protocol.md, section 1: with `auth` off a token is ignored."""
    client.subscribe(key, "30", "whatever")


def test_a_key_of_another_comet_is_refused(start: Start) -> None:
    """protocol.md, section 1: `-n`: the key belongs to another comet."""
    server = start(foreign=True)
    owners = {f"k{number}": server.owner(f"k{number}").node for number in range(20)}
    assert set(owners.values()) == {"node1", "node2"}
    for name, node in owners.items():
        with TcpClient(server.tcp) as client:
            client.send(request("sub", name, "30"))
            if node == "node1":
                assert client.read(4) == b"+h\r\n"
            else:
                assert client.rest() == b"-n\r\n"


def test_one_connection_too_many_is_reported(start: Start) -> None:
    """protocol.md, section 1: `-l`: the key has `maxsubscriber` connections already; others have their own count."""
    server = start(max_subscribers=2)
    with TcpClient(server.tcp) as first, TcpClient(server.tcp) as second:
        first.subscribe("k")
        second.subscribe("k")
        with TcpClient(server.tcp) as third:
            third.send(request("sub", "k", "30"))
            assert third.rest() == b"-l\r\n"
        with TcpClient(server.tcp) as other:
            other.subscribe("another")
        first.close()
        eventually(lambda: server.subscribers("k") == 1)
        with TcpClient(server.tcp) as third:
            third.subscribe("k")
            assert second.is_served()


def test_a_key_has_64_connections_by_default(server: CometServer, key: str) -> None:
    """protocol.md, section 9: `maxsubscriber 64`."""
    clients = [TcpClient(server.tcp).subscribe(key) for _ in range(64)]
    with TcpClient(server.tcp) as one_more:
        one_more.send(request("sub", key, "30"))
        assert one_more.rest() == b"-l\r\n"
    for client in clients:
        client.close()


# --- heartbeats and silence ---


def test_each_heartbeat_is_answered(client: TcpClient, key: str) -> None:
    """protocol.md, section 1: the single byte `h`, no CRLF; each one is answered `+h`."""
    client.subscribe(key)
    for _ in range(3):
        assert client.is_served()
    assert client.is_quiet(0.05)


@pytest.mark.parametrize("count", [1, 2, 100])
def test_heartbeats_may_share_a_segment(server: CometServer, key: str, count: int) -> None:
    """protocol.md, section 1: several may arrive in one segment, also right behind `sub` in the same segment."""
    with TcpClient(server.tcp) as client:
        client.send(request("sub", key, "30") + b"h" * count)
        assert client.read(4 * (count + 1)) == b"+h\r\n" * (count + 1)
        client.send(b"h" * count)
        assert client.read(4 * count) == b"+h\r\n" * count
        assert client.is_quiet(0.02)


@pytest.mark.parametrize("other", [b"x", b"H", b"\r\n", b"\n", b"\0", b"\xff", b" ", SUBSCRIBE, b"+h\r\n"])
def test_any_other_byte_closes(client: TcpClient, bystander: TcpClient, key: str, other: bytes) -> None:
    """protocol.md, section 1: any other byte closes without a reply."""
    client.subscribe(key)
    client.send(other)
    assert client.rest() == b""


@pytest.mark.parametrize("other", [b"hx", b"hhh\r\n", b"h" + SUBSCRIBE])
def test_heartbeats_before_another_byte_are_answered(client: TcpClient, key: str, other: bytes) -> None:
    """protocol.md, section 1: each heartbeat is answered, any other byte closes, however the segments fall."""
    client.subscribe(key)
    client.send(other)
    assert client.rest() == b"+h\r\n" * (len(other) - len(other.lstrip(b"h")))


def test_another_byte_closes_at_once_what_sends_on(client: TcpClient, key: str) -> None:
    """protocol.md, section 1: any other byte closes without a reply, and no reset takes away what was sent before."""
    client.subscribe(key)
    with sending(client, b"x" * (1 << 16), 100):
        assert client.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"*", SUBSCRIBE[:-1]])
def test_the_request_must_come_within_five_seconds(start: Start, sent: bytes) -> None:
    """protocol.md, section 1: the first complete request must arrive within 5 s, else close without a reply."""
    server = start()
    with TcpClient(server.tcp) as client, TcpClient(server.tcp) as quick:
        client.send(sent)
        quick.send(SUBSCRIBE[:-1])
        eventually(lambda: server.comet.counters.connections_added == 2)
        server.leap(4.9)
        assert client.is_quiet(0.6)
        quick.send(SUBSCRIBE[-1:])
        assert quick.read(4) == b"+h\r\n"
        server.leap(1.1)
        assert client.rest() == b""
        assert quick.is_served()


def test_bytes_of_a_request_put_nothing_off(start: Start) -> None:
    """protocol.md, section 1: 5 s for the whole request, not since the last byte of it."""
    server = start()
    with TcpClient(server.tcp) as client:
        for byte in (b"*", b"3", b"\r"):
            client.send(byte)
            eventually(lambda: server.comet.counters.connections_added == 1)
            server.leap(2)
        assert client.rest() == b""


def test_silence_closes(start: Start) -> None:
    """protocol.md, section 1: silence of `heartbeat + 5` s closes without a reply; messages to it are no sign of it."""
    server = start()
    with TcpClient(server.tcp) as silent, TcpClient(server.tcp) as alive, TcpClient(server.tcp) as patient:
        silent.subscribe("k", "30", "", "1")
        alive.subscribe("k", "30", "", "1")
        patient.subscribe("patient", "86400")
        server.leap(34.9)
        assert alive.is_served()
        assert silent.is_quiet(0.6)
        mid = server.push("k", b"1")
        server.leap(1.1)
        assert silent.rest() == b'$%d\r\n{"msg":1,"mid":%d,"gid":0}\r\n' % (len(str(mid)) + 24, mid)
        assert alive.message()
        assert alive.is_served()
        server.leap(86300)
        assert alive.rest() == b""
        assert patient.is_served()


def test_who_does_not_close_is_closed(start: Start) -> None:
    """protocol.md, section 1: `-p`, close: also where the client never closes its side, whatever it sends."""
    server = start()
    for subscribed, answer in [(False, b"-p\r\n"), (True, b"")]:
        removed = server.comet.counters.connections_removed
        with TcpClient(server.tcp) as client:
            if subscribed:
                client.subscribe("k")
            client.send(b"x")
            assert client.rest() == answer
            client.send(b"hhh")
            assert server.comet.counters.connections_removed == removed
            server.leap(6)
            eventually(lambda: server.comet.counters.connections_removed == removed + 1)  # noqa: B023


# --- messages ---


def test_a_message_is_one_bulk_string(client: TcpClient, server: CometServer, key: str) -> None:
    """protocol.md, section 1: `$<bytes>CRLF<json>CRLF`; section 3: key order and no blanks."""
    client.subscribe(key, "30", "", "1")
    mid = server.push(key, '{"a": "ü"}'.encode())
    expected = b'$51\r\n{"msg":{"a": "\xc3\xbc"},"mid":%d,"gid":0}\r\n' % mid
    assert client.read(len(expected)) == expected
    assert client.is_quiet(0.05)


RAW = {
    b'{"a": 1,\r\n "b":\n[1e400, 123456789012345678901234567890]}': (
        b'{"a": 1, "b":[1e400, 123456789012345678901234567890]}'
    ),
    b'{"a":1,"a":2}': b'{"a":1,"a":2}',
    b'"\\u0000 \\ud800 \\/"': b'"\\u0000 \\ud800 \\/"',
    b" 007 ": b" 007 ",
    '"ключ 🔑 \u2028"'.encode(): '"ключ 🔑 \u2028"'.encode(),
}


@pytest.mark.parametrize("body", RAW)
def test_who_gives_a_version_gets_raw_json(client: TcpClient, server: CometServer, key: str, body: bytes) -> None:
    """protocol.md, section 3: one that gave any version gets it as raw JSON; line breaks between tokens must go."""
    client.subscribe(key, "30", "", "anything")
    mid = server.push(key, body)
    assert client.message() == b'{"msg":%b,"mid":%d,"gid":0}' % (RAW[body], mid)


OLD = {
    b'{"a": 1,\r\n "b"}': b'"{\\"a\\": 1,\\r\\n \\"b\\"}"',
    b'"\\u0000 \\\\"': b'"\\"\\\\u0000 \\\\\\\\\\""',
    b"\t1 ": b'"\\t1 "',
    '"ключ 🔑"'.encode(): '"\\"ключ 🔑\\""'.encode(),
}


@pytest.mark.parametrize("body", OLD)
@pytest.mark.parametrize("more", [(), ("token",), ("token", "")])
def test_who_gives_no_version_gets_the_text(
    client: TcpClient, server: CometServer, key: str, body: bytes, more: tuple[str, ...]
) -> None:
    """protocol.md, section 3: no version: `msg` is a JSON string holding the pushed text, byte for byte."""
    client.subscribe(key, "30", *more)
    mid = server.push(key, body)
    assert client.message() == b'{"msg":%b,"mid":%d,"gid":0}' % (OLD[body], mid)


@pytest.mark.parametrize("size", [64 << 10, 1 << 20])
def test_large_messages_pass_through_small_buffers(server: CometServer, key: str, size: int) -> None:
    """protocol.md, section 9: with `sndbuf.size 2048`, `rcvbuf.size 256` a message of 1 MB passes."""
    assert (server.settings.sndbuf, server.settings.rcvbuf) == (2048, 256)
    body = b'"' + b"x" * (size - 2) + b'"'
    clients = [TcpClient(server.tcp, rcvbuf=4096 if slow else 0).subscribe(key, "30", "", "1") for slow in (0, 0, 1)]
    mids = [server.push(key, body), server.push(key, b"2")]
    for client in clients:
        assert client.message() == b'{"msg":%b,"mid":%d,"gid":0}' % (body, mids[0])
        assert client.message() == b'{"msg":2,"mid":%d,"gid":0}' % mids[1]
        assert client.is_served()
        client.close()


@pytest.mark.parametrize("keepalive", [True, False])
def test_keepalive_is_set_when_it_is_on(start: Start, keepalive: bool) -> None:
    """protocol.md, section 1: TCP keepalive is set when `tcp.keepalive` is on; section 9: the buffers' sizes."""
    server = start(keepalive=keepalive)
    with TcpClient(server.tcp) as client:
        client.subscribe("k")

        (session,) = server.sessions("k")

        def options() -> list[int]:
            handle = session.wire.transport.getHandle()
            names = (socket.SO_KEEPALIVE, socket.SO_SNDBUF, socket.SO_RCVBUF)
            return [handle.getsockopt(socket.SOL_SOCKET, name) for name in names] + [
                handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            ]

        keeps_alive, sndbuf, rcvbuf, no_delay = in_reactor(options)
        assert bool(keeps_alive) is keepalive
        assert sndbuf < 8192
        assert rcvbuf < 8192
        assert no_delay


@pytest.mark.parametrize(("heartbeat", "kept"), [("600", False), ("601", True), ("315360000", True)])
@pytest.mark.parametrize("protocol", ["tcp", "websocket"])
def test_keepalive_is_set_where_the_heartbeat_is_above_ten_minutes(
    server: CometServer, key: str, protocol: str, heartbeat: str, kept: bool
) -> None:
    """protocol.md, section 1: also where a client's heartbeat is above 10 minutes."""
    with TcpClient(server.tcp) if protocol == "tcp" else WebSocketClient(server.websocket) as client:
        if isinstance(client, TcpClient):
            client.subscribe(key, heartbeat)
        else:
            client.open(f"key={key}&heartbeat={heartbeat}").message()
        (session,) = server.sessions(key)
        handle = session.wire.transport.getHandle()
        assert bool(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is kept


def test_the_keepalive_default_is_off() -> None:
    """protocol.md, section 9: `tcp.keepalive no`."""
    assert SubscriberSettings().keepalive is False


# --- resuming ---


def test_a_mid_brings_what_came_after_it(server: CometServer, key: str) -> None:
    """protocol.md, section 1: the sixth argument; section 3: an incoming cursor is snapped to a multiple of 16."""
    mids = [server.push(key, b"%d" % number) for number in range(5)]
    for after, off in [(0, 0), (1, 7), (2, -8), (3, 1), (4, -1)]:
        with TcpClient(server.tcp) as client:
            client.subscribe(key, "30", "", "1", str(mids[after] + off))
            for number in range(after + 1, 5):
                assert client.message() == b'{"msg":%d,"mid":%d,"gid":0}' % (number, mids[number])
            assert client.is_served()


def test_a_backlog_comes_before_what_is_live(server: CometServer, key: str) -> None:
    """protocol.md, section 1: `mid` 0 brings all there is; then the heartbeats, then what is live."""
    first = server.push(key, b"1")
    with TcpClient(server.tcp) as client:
        client.send(request("sub", key, "30", "", "1", "0") + b"hh")
        assert client.read(4) == b"+h\r\n"
        assert client.message() == b'{"msg":1,"mid":%d,"gid":0}' % first
        assert client.read(8) == b"+h\r\n" * 2
        second = server.push(key, b"2")
        assert client.message() == b'{"msg":2,"mid":%d,"gid":0}' % second
        assert client.is_quiet(0.05)


def test_the_plain_way_brings_nothing_old(server: CometServer, key: str) -> None:
    """protocol.md, section 1: without a `mid` only what is pushed from `+h` on."""
    server.push(key, b"1")
    with TcpClient(server.tcp) as client:
        client.subscribe(key, "30", "", "1")
        mid = server.push(key, b"2")
        assert client.message() == b'{"msg":2,"mid":%d,"gid":0}' % mid


def test_what_was_trimmed_away_is_reported(start: Start) -> None:
    """`+h`, then `+g` where messages after the mid were trimmed away (0 never gets it), then the backlog."""
    server = start(StoreSettings(store=2))
    mids = [server.push("k", b"%d" % number) for number in range(5)]
    with TcpClient(server.tcp) as client:
        client.subscribe("k", "30", "", "1", str(mids[1]))
        assert client.read(4) == b"+g\r\n"
        assert client.message() == b'{"msg":3,"mid":%d,"gid":0}' % mids[3]
        assert client.message() == b'{"msg":4,"mid":%d,"gid":0}' % mids[4]
        assert client.is_served()
    for mid in (0, mids[2]):
        with TcpClient(server.tcp) as client:
            client.subscribe("k", "30", "", "1", str(mid))
            assert client.message() == b'{"msg":3,"mid":%d,"gid":0}' % mids[3]


def test_a_mid_of_the_future_is_refused(server: CometServer, key: str) -> None:
    """A cursor more than 60 s ahead of now is `-p`."""
    for ahead, answer in [(70, b"-p\r\n"), (50, b"+h\r\n")]:
        with TcpClient(server.tcp) as client:
            client.send(request("sub", key, "30", "", "1", str(mid_at(time.time() + ahead))))
            assert client.read(4) == answer


def test_a_long_backlog_comes_whole_through_small_buffers(start: Start) -> None:
    """A resume longer than a page and than the buffers arrives in order, each message once, then the live ones."""
    server = start(StoreSettings(store=1000))
    body = b'"' + b"x" * 1000 + b'"'
    mids = [server.push("k", body) for _ in range(700)]
    with TcpClient(server.tcp, rcvbuf=4096) as client:
        client.subscribe("k", "30", "", "1", "0")
        mids.append(server.push("k", body))
        for mid in mids:
            assert client.message() == b'{"msg":%b,"mid":%d,"gid":0}' % (body, mid)
        assert client.is_served()
