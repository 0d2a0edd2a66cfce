"""The opening handshake of WebSocket clients, without a socket (RFC 6455, section 4; protocol.md, section 2)."""

from __future__ import annotations

from typing import Any

import pytest

from gopush.comet.handshake import MAX_HEAD_BYTES, HandshakeError, Opening, read
from tests.clients import ACCEPT, opening


def accepted(data: bytes) -> Opening:
    result = read(data)
    assert result is not None
    return result


def refused(data: bytes) -> tuple[int, bytes]:
    """The status and all of the answer."""
    with pytest.raises(HandshakeError) as raised:
        read(data)
    answer = raised.value.answer
    assert answer.startswith(b"HTTP/1.1 ")
    assert answer.endswith(b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    return int(answer.split()[1]), answer


def test_the_example_of_the_rfc_is_answered() -> None:
    """RFC 6455, section 1.3."""
    data = opening("/sub?key=k", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
    lines = accepted(data).answer.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    assert sorted(lines[1:]) == [
        b"",
        b"",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        b"Server: gopush",
        b"Upgrade: websocket",
    ]


@pytest.mark.parametrize("at", [0, 1, 20, -3, -1])
def test_a_part_of_a_handshake_is_none(at: int) -> None:
    """protocol.md, section 2: a handshake may come in pieces."""
    assert read(opening("/sub?key=k")[: at or None][:-1] if at > -1 else opening("/sub?key=k")[:at]) is None


def test_what_follows_is_kept() -> None:
    """Frames may come right behind the handshake."""
    assert accepted(opening("/sub") + b"\x81\x00").rest == b"\x81\x00"


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/sub", b""),
        ("/sub?", b""),
        ("/sub?key=a&heartbeat=30", b"key=a&heartbeat=30"),
        ("/sub?a?b=/c", b"a?b=/c"),
        ("/s%75b?key=a", b"key=a"),
        ("http://push.example:6968/sub?key=a", b"key=a"),
        ("ws://push.example/sub?key=a", b"key=a"),
        ("x+y-1.z://[::1]:80/sub?key=http://a/b", b"key=http://a/b"),
        ("/sub?key=ключ", "key=ключ".encode()),
        ('/sub?key={"a"}|^', b'key={"a"}|^'),
        (b"/sub?key=\xff", b"key=\xff"),
    ],
)
def test_the_query_is_found(target: str | bytes, query: bytes) -> None:
    """protocol.md, section 2: `GET /sub?key=K…`; the bytes of a key that was not percent-encoded pass unchanged."""
    assert accepted(opening(target)).query == query


@pytest.mark.parametrize(
    "fields",
    [
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, websocket"},
        {"Upgrade": ["h2c", "WEBSOCKET"]},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "upgrade"},
        {"Connection": ["keep-alive", "Upgrade"]},
        {"Host": "[::1]:6968"},
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "http://example.com"},
        {"Origin": "chrome-extension://abc"},
        {"Origin": "capacitor://localhost"},
        {"Origin": "file://"},
        {"Origin": "what ever"},
        {"Origin": ""},
        {"Sec_WebSocket_Protocol": "chat, superchat"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        {"Cookie": "a=ü; b=\tc"},
        {"X_Empty": ""},
    ],
)
def test_these_header_fields_are_well(fields: dict[str, Any]) -> None:
    """protocol.md, section 2: Origin may be absent; by default any is allowed."""
    answer = accepted(opening("/sub", **fields)).answer
    assert b"Sec-WebSocket-Accept: %b\r\n" % ACCEPT.encode() in answer
    assert (b"\r\nSec-WebSocket-Protocol: chat\r\n" in answer) == ("Sec_WebSocket_Protocol" in fields)
    assert b"Extensions:" not in answer


@pytest.mark.parametrize(
    ("asked", "selected"),
    [
        *(
            ("chat", b"chat"),
            ("Chat.v1+x", b"Chat.v1+x"),
            (" \tchat\t ", b"chat"),
            ("!#$%&'*+.^_`|~", b"!#$%&'*+.^_`|~"),
        ),
        *(("superchat,chat", b"superchat"), ("b\t, a", b"b"), (["b", "a"], b"b"), ("chat, a b", b"chat")),
        *((", ,chat", b"chat"), ("chat,", b"chat"), ("chat, chat", b"chat"), (["", "chat"], b"chat")),
        *((None, b""), ("", b""), (",", b""), (" , ,\t", b""), ("a b", b""), ("a b, chat", b""), ("a/1", b"")),
        *(('"chat"', b""), ("chat;q=1", b""), ("ch\xe4t", b""), ("a" * 7000 + " b", b""), ("," * 7000 + "@", b"")),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_the_first_sub_protocol_is_selected(asked: str | list[str] | None, selected: bytes) -> None:
    """protocol.md, section 2: if it is a token. A browser that asked for some fails where none is selected."""
    lines = accepted(opening("/sub", Sec_WebSocket_Protocol=asked)).answer.split(b"\r\n")
    found = [line for line in lines if line.startswith(b"Sec-WebSocket-Protocol")]
    assert found == ([b"Sec-WebSocket-Protocol: " + selected] if selected else [])
    assert len(lines) == 7 + len(found)


def test_names_of_header_fields_have_no_case() -> None:
    """RFC 6455, section 4.2.1: names of header fields are case-insensitive."""
    for data in (opening("/sub").replace(b"Sec-WebSocket-", b"sec-websocket-"), opening("/sub").replace(b": ", b":")):
        assert ACCEPT.encode() in accepted(data).answer


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/sub/", "/SUB", "/other?key=k", "/sub;a", "*", "//sub", "/sub%00", "sub"),
        *("ws://h", "ws://h?/sub", "ws:///sub", "://h/sub", "1x://h/sub", "a?b://h/sub"),
    ],
)
@pytest.mark.parametrize("upgrade", ["websocket", None])
def test_another_path_is_not_found(target: str, upgrade: str | None) -> None:
    """protocol.md, section 2: path `/sub` only (else 404)."""
    assert refused(opening(target, Upgrade=upgrade))[0] == 404


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "get", "BREW"])
def test_another_method_is_not_allowed(method: str) -> None:
    """protocol.md, section 2: GET only (405)."""
    status, answer = refused(opening("/sub?key=k", method=method))
    assert status == 405
    assert b"\r\nAllow: GET\r\n" in answer


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2"])
def test_another_version_of_http_is_refused(version: str) -> None:
    """RFC 6455, section 4.2.1: an HTTP/1.1 GET request."""
    assert refused(opening("/sub", version=version))[0] == 505


@pytest.mark.parametrize("version", ["8", "12", "14", "0", "-13", "+13", "013", "1_3", "13, 8", "", "x", "13.0", None])
def test_another_version_of_websocket_is_refused(version: str | None) -> None:
    """protocol.md, section 2: version 13 only (400 or 426)."""
    status, answer = refused(opening("/sub", Sec_WebSocket_Version=version))
    assert status == 426
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer
    assert b"\r\nUpgrade: websocket\r\n" in answer


@pytest.mark.parametrize(
    "fields",
    [
        {"Upgrade": None},
        {"Upgrade": ""},
        {"Upgrade": "h2c"},
        {"Upgrade": "websockets"},
        {"Upgrade": "web socket"},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Connection": "upgraded"},
    ],
)
def test_no_upgrade_is_reported(fields: dict[str, Any]) -> None:
    """protocol.md, section 2: no Upgrade 426."""
    status, answer = refused(opening("/sub", **fields))
    assert status == 426
    assert b"\r\nUpgrade: websocket\r\n" in answer


@pytest.mark.parametrize(
    "key",
    [
        *(None, "", "x", "AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0ODw=", "AAECAwQFBgcICQoLDA0O", "A" * 24),
        *(
            "AAECAwQFBgcICQoLDA0ODxA=",
            "AAECAwQFBgcICQoLDA0OD*==",
            "AAECAwQFBgcICQoLDA0OD-==",
            "AAEC AwQFBgcICQoLDA0ODw",
        ),
        ["AAECAwQFBgcICQoLDA0ODw==", "AAECAwQFBgcICQoLDA0ODw=="],
    ],
)
def test_a_bad_key_is_refused(key: str | list[str] | None) -> None:
    """protocol.md, section 2: bad key 400: it is the base64 of 16 bytes, once."""
    assert refused(opening("/sub", Sec_WebSocket_Key=key))[0] == 400


@pytest.mark.parametrize("host", [None, "", ["a", "a"]])
def test_a_host_is_wanted(host: str | list[str] | None) -> None:
    """RFC 6455, section 4.2.1: a Host header field."""
    assert refused(opening("/sub", Host=host))[0] == 400


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\r\n" + opening("/sub"),
        b"GET /sub\r\n\r\n",
        b"GET  /sub HTTP/1.1\r\n\r\n",
        b"GET /sub?a b HTTP/1.1\r\n\r\n",
        b"GET /sub http/1.1\r\n\r\n",
        b"GET /sub HTTP/1.1 \r\n\r\n",
        b"GET /sub HTTP/11\r\n\r\n",
        opening("/sub#fragment"),
        opening("/sub").replace(b"Host:", b"Host :"),
        opening("/sub").replace(b"Host:", b" Host:"),
        opening("/sub").replace(b"Host:", b"Ho\0st:"),
        opening("/sub").replace(b"Host:", b":"),
        opening("/sub").replace(b"Host: ", b"Host"),
        opening("/sub").replace(b"\r\nHost", b"\nHost"),
        opening("/sub").replace(b"\r\nHost", b"\rHost"),
        opening("/sub", X="a\nb"),
        opening("/sub", X="a\0b"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(data: bytes) -> None:
    """protocol.md, section 2: nothing else is a handshake; RFC 9112 names these malformed."""
    assert refused(data)[0] == 400


@pytest.mark.parametrize("ends", ["\n\n", "\r\n\n", "\n", "\n\r", "\r\n\r\n"])
def test_a_line_that_ends_in_a_line_feed_alone_is_refused_at_once(ends: str) -> None:
    first = "\r\n" if ends == "\r\n\n" else "\n"
    assert refused(f"GET /sub HTTP/1.1{first}Host: x{ends}".encode())[0] == 400


def test_a_handshake_is_bounded() -> None:
    """No handshake holds more than a few KB, whether it ends or not."""
    room = MAX_HEAD_BYTES - len(opening("/sub", X=""))
    assert accepted(opening("/sub", X="x" * room) + b"rest" * 10000)
    assert refused(opening("/sub", X="x" * (room + 1)))[0] == 431
    assert refused(b"G" * (MAX_HEAD_BYTES + 1))[0] == 431
    assert read(b"G" * MAX_HEAD_BYTES) is None


def test_pages_of_other_sites_are_turned_away_where_sites_are_listed() -> None:
    """protocol.md, section 2: Origin may be absent; by default any is allowed."""
    sites = ("https://www.example.org", "null")
    for fields in (
        {},
        {"Origin": "https://www.example.org"},
        {"Origin": "HTTPS://WWW.example.org"},
        {"Origin": "null"},
    ):
        assert read(opening("/sub", **fields), sites) is not None
    for origin in ("https://example.org", "http://www.example.org", "https://www.example.org:8443", "", "x"):
        assert read(opening("/sub", Origin=origin)) is not None
        with pytest.raises(HandshakeError) as raised:
            read(opening("/sub", Origin=origin), sites)
        assert raised.value.answer.startswith(b"HTTP/1.1 403 ")
    twice = opening("/sub", Origin="https://www.example.org").replace(
        b"Host:", b"Origin: https://evil.example\r\nHost:"
    )
    with pytest.raises(HandshakeError):
        read(twice, sites)
