"""A response, and how it looks on the wire. Pure."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from gopush.http.request import Request

TEXT = "text/plain;charset=utf-8"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Response(NamedTuple):
    """What a handler answers; `headers` are more header lines, names and values without line breaks."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def plain(status: int, *headers: tuple[str, str]) -> Response:
    """A response that only names its status."""
    return Response(status, TEXT, HTTPStatus(status).phrase.encode() + b"\n", headers)


class Later:
    """A response that comes later, by a plain call: for what is asked so often that a Deferred would be felt."""

    __slots__ = ("_response", "_take")

    def __init__(self) -> None:
        self._response: Response | None = None
        self._take: Callable[[Response], object] | None = None

    def give(self, response: Response) -> None:
        """This is it. To be called once."""
        if self._take is None:
            self._response = response
        else:
            self._take(response)

    def then(self, take: Callable[[Response], object]) -> None:
        """Have `take` called with the response, at once where it is there already."""
        if self._response is None:
            self._take = take
        else:
            take(self._response)


class Renderer:
    """Makes bytes of responses; keeps what precedes the length of the body ready, for as long as its date is right."""

    __slots__ = ("_date", "_starts")

    def __init__(self, now: float) -> None:
        self._starts: dict[tuple[int, str, bytes], bytes] = {}
        self.set_time(now)

    def set_time(self, now: float) -> None:
        """Set the date of the responses from now on, in seconds since the epoch."""
        self._date = formatdate(now, usegmt=True)
        self._starts.clear()

    def render(self, response: Response, request: Request) -> bytes:
        """All of a response to `request`."""
        status, content_type, body, headers = response
        connection = request.connection
        start = self._starts.get((status, content_type, connection)) or self._start(status, content_type, connection)
        if headers or request.method == b"HEAD":
            more = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
            length = len(body)
            return b"%bContent-Length: %d\r\n%b\r\n%b" % (
                start,
                length,
                more,
                b"" if request.method == b"HEAD" else body,
            )
        return b"%bContent-Length: %d\r\n\r\n%b" % (start, len(body), body)

    def streamed_head(self, content_type: str, request: Request) -> bytes:
        """The head of a response of status 200 whose body follows in chunks; under HTTP/1.0 just until the end."""
        coding = b"" if request.version == "1.0" else b"Transfer-Encoding: chunked\r\n"
        return b"%b%b\r\n" % (self._start(200, content_type, request.connection), coding)

    def _start(self, status: int, content_type: str, connection: bytes) -> bytes:
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {self._date}\r\nContent-Type: {content_type}\r\n"
        )
        start = lines.encode("latin-1") + (b"Connection: %b\r\n" % connection if connection else b"")
        self._starts[status, content_type, connection] = start
        return start
