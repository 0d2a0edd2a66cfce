"""Bytes to requests, with bounds. Pure: httptools does the parsing.

httptools knows two parsers (http-parser in old releases, llhttp in new ones); what only one of them refuses and what
could make two readers disagree about where a request ends is refused here.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote_from_bytes

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from gopush.http.request import Request
from gopush.http.response import Response, plain
from gopush.http.routing import Route, RouteTable, StreamRoute, always

HEAD_LIMIT = 16 << 10
_SPACE, _TAB = b" \t"  # as integers: bytes in bytes takes three times as long
_ASCII = bytes(range(128)).decode()


class Body(Protocol):
    """Takes the body of a request as it comes."""

    def feed(self, piece: bytes) -> None:
        """Take a piece."""

    def end(self) -> None:
        """The body is complete."""


class Sink(Protocol):
    """What becomes of the requests."""

    def request(self, request: Request, route: Route) -> None:
        """Take a request with its whole body."""

    def stream(self, request: Request, route: StreamRoute) -> Body:
        """Take a request whose body follows."""

    def proceed(self) -> None:
        """The client waits for a word before it sends the body of the next request."""


class RefusedError(Exception):
    """A request that ends the connection: it is answered `response`, of which `request` tells the form.

    `unread`: the client is probably still sending.
    """

    def __init__(self, response: Response, request: Request | None, unread: bool) -> None:
        super().__init__(response.status)
        self.response = response
        self.request = request or Request(b"GET", b"")
        self.request.connection = b"close"
        self.unread = unread


class _LastRequestError(Exception):
    """The client wanted the connection closed after this request."""


class RequestParser:
    """Parses what one connection sends."""

    __slots__ = (
        "_between",
        "_body",
        "_fed",
        "_head_size",
        "_headers",
        "_parser",
        "_peer",
        "_pieces",
        "_progress",
        "_request",
        "_room",
        "_route",
        "_sink",
        "_table",
        "_url",
        "finished",
    )

    def __init__(self, sink: Sink, table: RouteTable, peer: str) -> None:
        self._sink = sink
        self._table = table
        self._peer = peer
        self._parser = HttpRequestParser(self)
        self._fed = 0
        self._progress = False
        self.finished = False
        self.on_message_begin()
        self._between = True

    def feed(self, data: bytes) -> bool:
        """Parse a piece of input; whether it moved something on: began a request, or ended a head, or was of a body.

        Raises RefusedError. After that, and once `finished`, the parser must not be fed again.
        """
        self._progress = False
        if self._between and not data.isascii():
            data = _escape_line(data)
        try:
            self._parse(data)
        except HttpParserCallbackError as stopped:
            cause = stopped.__context__
            if not isinstance(cause, _LastRequestError):
                raise cause or stopped from None
            self.finished = True
        except HttpParserError:
            raise RefusedError(plain(400), None, False) from None
        if self._progress:
            self._fed = 0
        else:
            self._fed += len(data)
            if self._fed > HEAD_LIMIT:
                raise RefusedError(plain(431), None, True)
        return self._progress

    def _parse(self, data: bytes) -> None:
        """Feed httptools; it stops behind a head that asks for another protocol, which is then parsed without that."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                data = self._head_again() + data[upgrade.args[0] :]
                self._parser = HttpRequestParser(self)

    def _head_again(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        lines += [b"%b: %b" % line for line in self._headers.items() if line[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._progress = True
        self._between = False
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_size = 0
        self._request: Request | None = None

    def on_url(self, piece: bytes) -> None:
        """A piece of the request target."""
        self._url += piece
        if len(self._url) > HEAD_LIMIT:
            raise RefusedError(plain(414), None, True)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, and those are ignored."""
        self._head_size += len(name) + len(value) + 4
        if self._head_size > HEAD_LIMIT:
            raise RefusedError(plain(431), None, True)
        if self._request is not None:
            return
        name = name.lower()
        if name in self._headers:
            self._headers[name] += b", " + value
        elif _SPACE in name or _TAB in name:
            raise RefusedError(plain(400), None, False)
        else:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is complete: now it is known who takes the body and how long it may be."""
        self._progress = True
        parser, headers = self._parser, self._headers
        method = parser.get_method()
        if parser.should_upgrade() and method != b"CONNECT":
            return
        path, _, query = (self._url if self._url[:1] == b"/" else _origin_form(self._url)).partition(b"?")
        self._request = request = Request(method, path, query, headers, b"", self._peer)
        request.version = version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                raise RefusedError(plain(505), request, False)
            request.connection = b"keep-alive"
        if not parser.should_keep_alive():
            request.connection = b"close"
        self._route = route = self._table.find(path, method)
        self._body: Body | None = None
        self._pieces: list[bytes] = []
        self._room = route.limit
        with_body = b"content-length" in headers or b"transfer-encoding" in headers
        if with_body:
            self._check_length(request)
        if method == b"CONNECT":
            raise RefusedError(plain(405), request, False)
        if version == "1.0" and isinstance(route, StreamRoute):
            request.connection = b"close"
        refusal = route.refuse(request)
        if refusal is not None:
            if with_body or isinstance(route, StreamRoute):
                raise RefusedError(refusal, request, True)
            self._route = always(refusal)
        if with_body and version == "1.1" and headers.get(b"expect", b"").lower() == b"100-continue":
            self._sink.proceed()
        if isinstance(route, StreamRoute):
            self._body = self._sink.stream(request, route)

    def _check_length(self, request: Request) -> None:
        coding, length = request.headers.get(b"transfer-encoding"), request.headers.get(b"content-length")
        if coding is None:
            if int(length or 0) > self._room:
                raise self._too_large(request)
        elif coding.strip().lower() != b"chunked" or length is not None or request.version == "1.0":
            raise RefusedError(plain(400), request, False)

    def _too_large(self, request: Request | None) -> RefusedError:
        assert isinstance(self._route, Route)  # streams are endless
        return RefusedError(self._route.too_large, request, True)

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._progress = True
        self._room -= len(piece)
        if self._room < 0:
            raise self._too_large(self._request)
        if self._body is None:
            self._pieces.append(piece)
        else:
            self._body.feed(piece)

    def on_message_complete(self) -> None:
        """The request is complete."""
        request = self._request
        if request is None:
            return
        self._progress = self._between = True
        if self._body is not None:
            self._body.end()
        elif isinstance(self._route, Route):
            request.body = b"".join(self._pieces)
            self._sink.request(request, self._route)
        if request.connection == b"close":
            raise _LastRequestError


def _escape_line(data: bytes) -> bytes:
    """Escape the letters beyond ASCII that old clients leave in a request line: only old parsers let them pass."""
    line, end, rest = data.partition(b"\r\n")
    return data if line.isascii() else quote_from_bytes(line, _ASCII).encode() + end + rest


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target in its absolute form."""
    _, scheme, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if scheme else target
