"""An answer, and how it looks on the wire. Pure."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred

from gopush.net.http.request import Request

TEXT = "text/plain;charset=utf-8"

Fields = tuple[tuple[str, str], ...]


class Response(NamedTuple):
    """What a handler answers; `headers` are more header lines, names and values without line breaks."""

    status: int
    content_type: str
    body: bytes
    headers: Fields = ()


class Paged(NamedTuple):
    """An answer that is too large to be held. `first` begins its body, `more` gives the next piece, b"" at the end.

    `more` is called when the client has read what came before; where it fails, the connection is cut.
    """

    status: int
    content_type: str
    first: bytes
    more: Callable[[], Deferred[bytes]]
    headers: Fields = ()


AnyResponse = Response | Paged
R = TypeVar("R", Response, Paged, Response | Paged)


def plain(status: int, *headers: tuple[str, str]) -> Response:
    """A response that only names its status."""
    return Response(status, TEXT, HTTPStatus(status).phrase.encode() + b"\n", headers)


class Promise:
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

    def fields(self, response: AnyResponse, request: Request) -> list[tuple[str, str]]:
        """The header lines of a response, but for what tells that its body comes in chunks."""
        found = self._first_fields(response.status, response.content_type, request.connection)
        if isinstance(response, Response) and response.status != HTTPStatus.NO_CONTENT:
            found.append(("Content-Length", str(len(response.body))))
        return [*found, *response.headers]

    def render(self, response: Response, request: Request) -> bytes:
        """All of a response to `request`, which is not HEAD."""
        status, content_type, body, headers = response
        connection = request.connection
        start = self._starts.get((status, content_type, connection)) or self._start(status, content_type, connection)
        if not headers:
            return b"%bContent-Length: %d\r\n\r\n%b" % (start, len(body), body)
        return b"%bContent-Length: %d\r\n%b\r\n%b" % (start, len(body), _lines(headers), body)

    def paged_head(self, response: Paged, request: Request) -> bytes:
        """The head of a response whose body follows in chunks."""
        start = self._start(response.status, response.content_type, request.connection)
        return b"%b%bTransfer-Encoding: chunked\r\n\r\n" % (start, _lines(response.headers))

    def _start(self, status: int, content_type: str, connection: bytes) -> bytes:
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        start = line + _lines(self._first_fields(status, content_type, connection))
        self._starts[status, content_type, connection] = start
        return start

    def _first_fields(self, status: int, content_type: str, connection: bytes) -> list[tuple[str, str]]:
        found = [("Date", self._date)]
        if status != HTTPStatus.NO_CONTENT:
            found.append(("Content-Type", content_type))
        if connection:
            found.append(("Connection", connection.decode("ascii")))
        return found


def chunk(data: bytes) -> bytes:
    """A piece of a body that is sent in chunks; of an empty one its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _lines(fields: Fields | list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
