"""A request as handlers see it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from gopush.errors import ParameterError

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Form:
    """Form-encoded names and values: of a repeated name the first one counts (protocol.md, section 4)."""

    __slots__ = ("_escaped", "_values")

    def __init__(self, encoded: bytes) -> None:
        text = encoded.decode("latin-1")
        self._escaped = "%" in text or "+" in text or not text.isascii()
        self._values: dict[str, str] = {}
        for pair in text.split("&"):
            name, _, value = pair.partition("=")
            if self._escaped:
                name = _plain(name).decode("utf-8", "surrogateescape")
            self._values.setdefault(name, value)

    def get(self, name: str) -> str | None:
        """The value of `name`, None where it is absent. Raises ParameterError where it is not UTF-8."""
        value = self._values.get(name)
        if value is None or not self._escaped:
            return value
        if "%" in value and _BAD_ESCAPE.search(value):
            raise ParameterError(f"{name} is not form-encoded: a % begins the two hexadecimal digits of a byte")
        try:
            return _plain(value).decode()
        except UnicodeDecodeError:
            raise ParameterError(f"{name} is not UTF-8") from None

    def text(self, name: str) -> str:
        """As get(), and an absent value is an empty one."""
        return self.get(name) or ""


def _plain(encoded: str) -> bytes:
    """What was encoded in bytes that are letters here (Latin-1)."""
    return unquote_to_bytes(encoded.replace("+", " ").encode("latin-1"))


class Request:
    """One request, its body included.

    `path`: percent-encoded as it came, without the query. `headers`: names in lower case, the values of a repeated
    name joined by ", ". `peer`: the IP address of the client, "" for a UNIX socket. `connection`: what the Connection
    header of the answer has to say, b"" for none; b"close" where this request is the last one. `caller`: whom a route's
    `refuse` has recognised, for its handler.
    """

    __slots__ = ("_form", "_query", "body", "caller", "connection", "headers", "method", "path", "peer")

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
        self.path = path
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
