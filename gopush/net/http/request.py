"""A request as handlers see it, and an answer, and how that looks on the wire. Pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from gopush.errors import ParameterError

_PHRASES = {413: "Request Entity Too Large", 414: "Request-URI Too Long"}
"""The words for a status that Python 3.13 has changed: a client may look for them."""
_NO_CONTENT = HTTPStatus.NO_CONTENT
"""A name of its own: Python 3.11 calls a function for each look at a member of an enumeration."""
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Form:
    """Form-encoded names and values: of a repeated name the first one counts (protocol.md, section 4)."""

    __slots__ = ("_escaped", "_values")

    def __init__(self, encoded: bytes) -> None:
        text = encoded.decode("latin-1")
        self._escaped = "%" in text or "+" in text or not text.isascii()
        values: dict[str, str] = {}
        for pair in text.split("&"):
            name, _, value = pair.partition("=")
            if name not in values:
                values[name] = value
        self._values = _with_plain_names(values) if self._escaped else values

    def has(self, name: str) -> bool:
        """Whether a name is there at all."""
        return name in self._values

    def get(self, name: str) -> str | None:
        """The value of `name`, None where it is absent. Raises ParameterError where it is not UTF-8."""
        value = self._values.get(name)
        if value is None or not self._escaped:
            return value
        if "%" in value and _BAD_ESCAPE.search(value):
            raise ParameterError(f"{name} is not form-encoded: two hexadecimal digits must follow a %")
        try:
            return _plain(value).decode()
        except UnicodeDecodeError:
            raise ParameterError(f"{name} is not UTF-8") from None

    def text(self, name: str) -> str:
        """As get(), and an absent value is an empty one."""
        return self.get(name) or ""


def _with_plain_names(values: dict[str, str]) -> dict[str, str]:
    """All names at once, because strangers send thousands. No name that anybody asks for has an ampersand."""
    joined = "&".join(values).replace("%26", "%00")
    plain: dict[str, str] = {}
    for name, value in zip(_plain(joined).decode("utf-8", "surrogateescape").split("&"), values.values(), strict=True):
        plain.setdefault(name, value)
    return plain


def _plain(encoded: str) -> bytes:
    """What was encoded in bytes that are letters here (Latin-1)."""
    return unquote_to_bytes(encoded.replace("+", " ").encode("latin-1"))


class Request:
    """One request, its body included.

    `path`: percent-encoded as it came, without the query. `headers`: names in lower case, the values of a repeated
    name joined by ", ". `peer`: the IP address of the client, "" for a UNIX socket. `connection`: what the Connection
    header of the answer has to say, b"" for none; b"close" where this request is the last one. `caller`: whom a route's
    `refuse` has recognised, for its handler. `route`: the path that it stands for in counters, b"" where there is none.
    """

    __slots__ = ("_form", "_query", "body", "caller", "connection", "headers", "method", "path", "peer", "route")

    def __init__(
        self,
        method: bytes,
        path: bytes,
        query: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
        body: bytes = b"",
        peer: str = "",
    ) -> None:
        self.method = method
        self.path = self.route = path
        self._query = query
        self._form: Form | None = None
        self.headers = headers or {}
        self.body = body
        self.peer = peer
        self.connection = b""
        self.caller: Any = None

    @property
    def query(self) -> Form:
        """The form-encoded query."""
        if self._form is None:
            self._form = Form(self._query)
        return self._form

    @property
    def wants_why(self) -> bool:
        """Whether an answer that refuses it is to say why: `why=1`, or `Prefer: why` (RFC 7240)."""
        prefer = self.headers.get(b"prefer", b"")
        if prefer and b"why" in [one.partition(b";")[0].strip(b" \t").lower() for one in prefer.split(b",")]:
            return True
        try:
            return self.query.get("why") == "1"
        except ParameterError:
            return False

    def header(self, name: bytes) -> str | None:
        """The value of a header (its name in lower case), None where it is absent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


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
    more: Callable[[], Awaitable[bytes]]
    headers: Fields = ()


AnyResponse = Response | Paged


class Streamed(NamedTuple):
    """The head of an answer that goes on until either side ends it, and its connection with it."""

    status: int
    content_type: str
    headers: Fields = ()


class CrossOrigin(Protocol):
    """What pages of other web sites may do (CORS)."""

    def fields(self, request: Request) -> Fields:
        """Header lines for the answer to this request, which has an Origin."""

    def preflight(self, request: Request, methods: str) -> Response | None:
        """The answer to a request that asks what may be done where there are these methods; None where it does not."""


def plain(status: int, *headers: tuple[str, str]) -> Response:
    """A response that only names its status."""
    return Response(status, TEXT, _phrase(status) + b"\n", headers)


def _phrase(status: int) -> bytes:
    return (_PHRASES.get(status) or HTTPStatus(status).phrase).encode()


def explained(response: Response, request: Request, why: str) -> Response:
    """A plain() response that says why, where the request asks for that; else it stays as it is."""
    if not request.wants_why:
        return response
    return response._replace(body=b"%b: %b\n" % (response.body.rstrip(b"\n"), why.encode()))


class Promise:
    """A response that comes later, by a plain call: for calls so frequent that a Deferred would cost too much."""

    _response: Response | None = None
    _take: Callable[[Response], object] | None = None

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

    __slots__ = ("_date", "_sharing", "_starts")

    def __init__(self, now: float, sharing: CrossOrigin | None = None) -> None:
        self._starts: dict[tuple[int, str, bytes], bytes] = {}
        self._sharing = sharing
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
        if self._sharing is not None and b"origin" in request.headers:
            # Where a field is in both, as Vary may be, it comes once.
            headers = tuple(dict.fromkeys(headers + self._sharing.fields(request)))
        fields = _lines(headers) if headers else b""
        if status == _NO_CONTENT:
            return b"%b%b\r\n" % (start, fields)
        sent = b"" if request.method == b"HEAD" else body
        return b"%bContent-Length: %d\r\n%b\r\n%b" % (start, len(body), fields, sent)

    def paged_head(self, response: Paged | Streamed, request: Request, chunked: bool) -> bytes:
        """The head of a response whose body follows, in chunks or until the end of the connection."""
        fields = response.headers
        if self._sharing is not None and b"origin" in request.headers:
            fields += self._sharing.fields(request)
        if chunked and request.method != b"HEAD":
            fields += (("Transfer-Encoding", "chunked"),)
        start = self._start(response.status, response.content_type, request.connection)
        return b"%b%b\r\n" % (start, _lines(fields))

    def _start(self, status: int, content_type: str, connection: bytes) -> bytes:
        fields = [("Date", self._date)]
        if status != _NO_CONTENT:
            fields.append(("Content-Type", content_type))
        if connection:
            fields.append(("Connection", connection.decode("ascii")))
        start = b"HTTP/1.1 %d %b\r\n%b" % (status, _phrase(status), _lines(fields))
        self._starts[status, content_type, connection] = start
        return start


def chunk(data: bytes) -> bytes:
    """A piece of a body that is sent in chunks; of an empty one its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _lines(fields: Fields | list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
