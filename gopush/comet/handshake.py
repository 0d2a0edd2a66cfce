"""The opening handshake of a WebSocket client (RFC 6455, section 4.2; protocol.md, section 2). Pure.

autobahn has one too, which logs requests with their tokens, refuses origins that no web site has, answers a wrong path
426 and costs 100 µs; from the answer on, the connection is autobahn's.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from hashlib import sha1
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gopush.net.http.head import origin_form

PATH = b"/sub"
MAX_HEAD_BYTES = 8192
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\t -~\x80-\xff]*"
# The original took raw UTF-8 in a query, so it passes.
_HEAD = re.compile(
    rb"(%b) ([!-~\x80-\xff]+) HTTP/(\d\.\d)\r\n((?:%b:%b\r\n)*)\r\n"  # method, target, version, fields
    % (_TOKEN, _TOKEN, _TEXT)
)
_FIELD = re.compile(rb"([^:]+):([^\r]*)\r\n")
_SUB_PROTOCOL = re.compile(rb"[ \t,]*+(%b+)[ \t]*+(?:,|\Z)" % _TOKEN)  # the first of a list; possessive
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # the base64 of 16 bytes


class Opening(NamedTuple):
    """A handshake that is accepted: the answer, the query, what came behind the handshake, and the fields."""

    answer: bytes
    query: bytes
    rest: bytes
    fields: Mapping[bytes, bytes]


class HandshakeError(Exception):
    """A handshake that is refused; `answer` says so to the client."""

    def __init__(self, status: HTTPStatus, *fields: bytes) -> None:
        super().__init__(status.phrase)
        self.status = status
        lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode()), *fields, b"Connection: close"]
        self.answer = b"\r\n".join([*lines, b"Content-Length: 0\r\n\r\n"])


def read(data: bytes, origins: Collection[str] = (), own: Collection[str] = ()) -> Opening | None:
    """Read what a client sent; None where its handshake is incomplete. Raises HandshakeError.

    Takes browsers from pages of `origins` (lower case; none: all) and of `own`; other clients name no origin.
    """
    end = data.find(b"\r\n\r\n") + 4
    is_whole = end >= 4
    if (end if is_whole else len(data)) > MAX_HEAD_BYTES:
        raise HandshakeError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if not is_whole:
        if data.count(b"\n") > data.count(b"\r\n"):  # the line is malformed, and its empty line would never come
            raise HandshakeError(HTTPStatus.BAD_REQUEST)
        return None
    head = _HEAD.fullmatch(data, 0, end)
    if head is None:
        raise HandshakeError(HTTPStatus.BAD_REQUEST)
    method, target, version, lines = head.groups()
    if b"#" in target:
        raise HandshakeError(HTTPStatus.BAD_REQUEST)
    path, _, query = (origin_form(target) or b"").partition(b"?")
    if path != PATH and unquote_to_bytes(path) != PATH:
        raise HandshakeError(HTTPStatus.NOT_FOUND)
    if method != b"GET":
        raise HandshakeError(HTTPStatus.METHOD_NOT_ALLOWED, b"Allow: GET")
    if version != b"1.1":
        raise HandshakeError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    fields = _fields(lines)
    origin = fields.get(b"origin")
    site = "" if origin is None else origin.decode("latin-1").lower()
    if origins and origin is not None and site not in origins and site not in own:
        raise HandshakeError(HTTPStatus.FORBIDDEN)
    return Opening(_answer(fields), query, data[end:], fields)


def _fields(lines: bytes) -> dict[bytes, bytes]:
    """Header fields: names in lower case, the values of a repeated name joined, so that none of them passes alone."""
    found = [(name.lower(), value.strip(b" \t")) for name, value in _FIELD.findall(lines)]
    fields = dict(found)
    if len(fields) == len(found):
        return fields
    values: dict[bytes, list[bytes]] = {}
    for name, value in found:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(each) for name, each in values.items()}


def _answer(fields: dict[bytes, bytes]) -> bytes:
    host = fields.get(b"host", b"")
    if not host or b"," in host:
        raise HandshakeError(HTTPStatus.BAD_REQUEST)
    if not _names(fields, b"upgrade", b"websocket") or not _names(fields, b"connection", b"upgrade"):
        raise HandshakeError(HTTPStatus.UPGRADE_REQUIRED, b"Upgrade: websocket")
    if fields.get(b"sec-websocket-version") != b"13":
        raise HandshakeError(HTTPStatus.UPGRADE_REQUIRED, b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    key = fields.get(b"sec-websocket-key", b"")
    if not _KEY.fullmatch(key):
        raise HandshakeError(HTTPStatus.BAD_REQUEST)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nServer: gopush\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (_sub_protocol(fields), b64encode(sha1(key + _GUID).digest()))
    )


def _sub_protocol(fields: dict[bytes, bytes]) -> bytes:
    """The line that selects the first one that the client names: a browser goes away where it asked and none is
    selected. None where that is no token; the original refused nobody for it either."""
    asked = fields.get(b"sec-websocket-protocol")
    first = _SUB_PROTOCOL.match(asked) if asked else None
    return b"Sec-WebSocket-Protocol: %b\r\n" % first[1] if first else b""


def _names(fields: dict[bytes, bytes], name: bytes, token: bytes) -> bool:
    """Whether a field holds a token in its list, whatever the case."""
    return token in [part.strip() for part in fields.get(name, b"").lower().split(b",")]
