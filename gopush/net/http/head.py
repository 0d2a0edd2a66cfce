"""The head of a request: at once, where a whole and simple request lies in one segment, else line by line. Pure.

What is read at once twisted.web would take with the same meaning; whatever is less simple is left to it. Versions of
twisted.web differ in what they let pass; whatever could make two readers disagree about where a request ends is refused
line by line, before twisted.web sees it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote_from_bytes

from gopush.net.http.request import Request
from gopush.net.http.routes import Route

HEAD_LIMIT = 16 << 10
MAX_FIELDS = 100
MAX_NAME_BYTES = 128
"""Of a field's name: twisted.web remembers the last 10,000 names for good, those that strangers send, too."""

_ASCII = bytes(range(128)).decode()
# Possessive: whatever a stranger sends is looked at once.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_LINE = re.compile(rb"(%b) ([!-~]++) HTTP/([0-9]\.[0-9])" % _TOKEN)
_FIELD = re.compile(rb"(%b):[ \t]*+([\t -~\x80-\xff]*+)" % _TOKEN)
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*+://[^/?#]++(?!#)")  # up to the path, which may be empty
_FIELD_LENGTH = re.compile(rb"[0-9]{1,18}[ \t]*")


class WrongHeadError(Exception):
    """A head that ends the connection, answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HeadScanner:
    """One after the other; `begun`: the request line was there. `method`, `target` (origin form) and `version` of this
    head, b"" until they are known.

    `origin`: the value of the field, as far as it has come: whoever made a head that is refused may be a page.
    """

    __slots__ = ("_bytes", "_fields", "begun", "method", "origin", "target", "version")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next line is that of a request."""
        self._bytes = self._fields = 0
        self.method = self.target = self.version = b""
        self.begun = False
        self.origin: bytes | None = None

    def take(self, line: bytes) -> bytes:
        """A line without its end, as it is handed on. Raises WrongHeadError."""
        self._bytes += len(line) + 2
        if self._bytes > HEAD_LIMIT:
            raise WrongHeadError(431 if self.begun else 414)
        if not line:
            return line
        if self.begun:
            self._check_field(line)
            return line
        self.begun = True
        return self._request_line(line)

    def _request_line(self, line: bytes) -> bytes:
        if not line.isascii():  # old clients leave letters as they are, which twisted.web takes in some versions only
            line = quote_from_bytes(line, _ASCII).encode()
        match = _LINE.fullmatch(line)
        if match is None:
            raise WrongHeadError(400)
        self.method = match[1]
        if match[3] not in (b"1.0", b"1.1"):
            raise WrongHeadError(505)
        target = origin_form(match[2])
        if target is None:
            raise WrongHeadError(400)
        self.target, self.version = target, b"HTTP/" + match[3]
        return b"%b %b %b" % (self.method, self.target, self.version)

    def _check_field(self, line: bytes) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise WrongHeadError(431)
        match = _FIELD.fullmatch(line)
        if match is None:
            raise WrongHeadError(400)
        name, value = match[1].lower(), match[2]
        if len(name) > MAX_NAME_BYTES:
            raise WrongHeadError(431)
        if name == b"content-length" and not _FIELD_LENGTH.fullmatch(value):
            raise WrongHeadError(400)
        if name == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
            raise WrongHeadError(400)
        if name == b"origin":
            value = value.strip(b" \t")
            self.origin = value if self.origin is None else b"%b, %b" % (self.origin, value)


def origin_form(target: bytes) -> bytes | None:
    """The path and query of a request target, which may be absolute (RFC 9112, section 3.2); None: it is neither."""
    if target[:1] == b"/" or target == b"*":
        return target
    start = _ABSOLUTE.match(target)
    if start is None:
        return None
    rest = target[start.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


MAX_HEAD_BYTES = 8 << 10
_HEAD = re.compile(
    rb"((GET|POST) (/[!->@-~]*+))(?:\?([!-~]*+))? HTTP/1\.1\r\n"
    rb"((?:%b:[\t -~\x80-\xff]*+\r\n){0,%d}+)\r\n" % (_TOKEN, MAX_FIELDS)
)
_ELSEWHERE = frozenset((b"connection", b"upgrade", b"expect", b"transfer-encoding"))
_LENGTH = re.compile(rb"[0-9]{1,9}")


@lru_cache(maxsize=256)
def _fields(lines: bytes) -> Mapping[bytes, bytes] | None:
    """Names in lower case and values; None where that is not simple. A client sends the same ones again and again."""
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in fields or name in _ELSEWHERE or len(name) > MAX_NAME_BYTES:
            return None
        fields[name] = value.strip(b" \t")
    return fields


Found = tuple[Request, Route, int]
"""A request with its body, its route, and where it ends in what was looked at."""


class RequestReader:
    """Finds simple requests; `routes`: by method and path, b"GET /path". One for all connections of a site."""

    def __init__(self, routes: Mapping[bytes, Route]) -> None:
        self._routes = routes

    def read(self, data: bytes, at: int, peer: str) -> Found | None:
        """The request that begins at this place, None where it is not whole or not simple."""
        head = _HEAD.match(data, at, at + MAX_HEAD_BYTES)
        if head is None:
            return None
        known, method, path, query, lines = head.groups(b"")
        route = self._routes.get(known)
        if route is None:
            return None
        fields = _fields(lines)
        if fields is None:
            return None
        start = end = head.end()
        length = fields.get(b"content-length")
        if length is not None:
            if not _LENGTH.fullmatch(length) or int(length) > route.limit:
                return None
            end += int(length)
            if end > len(data):
                return None
        return Request(method, path, query, fields, data[start:end], peer), route, end
