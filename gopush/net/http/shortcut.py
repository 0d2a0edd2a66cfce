"""Requests that come whole in one segment and are simple: read by one parser, answered together.

What is taken here twisted.web would take with the same meaning; whatever is less simple is left to it. httptools reads
the fields. Its old releases let much pass that a request must not have, so a head is looked at before they see it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from gopush.net.http.request import Request
from gopush.net.http.routes import Route

MAX_HEAD_BYTES = 8 << 10
MAX_FIELDS = 100
# Possessive: whatever a stranger sends is looked at once.
_HEAD = re.compile(
    rb"((GET|POST) (/[!->@-~]*+))(?:\?([!-~]*+))? HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t -~\x80-\xff]*+\r\n){0,100}+\r\n"
)
_ELSEWHERE = frozenset((b"connection", b"upgrade", b"expect", b"transfer-encoding"))
_LENGTH = re.compile(rb"[0-9]{1,9}")


Found = tuple[Request, Route, int]
"""A request with its body, its route, and where it ends in what was looked at."""


class RequestReader:
    """Finds simple requests; `routes`: by method and path, b"GET /path". One for all connections of a site."""

    def __init__(self, routes: Mapping[bytes, Route]) -> None:
        self._routes = routes
        self._fields: dict[bytes, bytes] = {}
        self._simple = self._complete = False
        self._parser = HttpRequestParser(self)

    def read(self, data: bytes, at: int, peer: str) -> Found | None:
        """The request that begins at this place, None where it is not whole or not simple."""
        head = _HEAD.match(data, at, at + MAX_HEAD_BYTES)
        if head is None:
            return None
        known, method, path, query = head.groups(b"")
        route = self._routes.get(known)
        if route is None:
            return None
        start = end = head.end()
        self._fields = fields = dict[bytes, bytes]()
        self._simple = True
        self._complete = False
        body = b""
        try:
            self._parser.feed_data(data[at:start])
            length = fields.get(b"content-length")
            if length is not None and not self._complete and self._simple and _LENGTH.fullmatch(length):
                end += int(length)
                if int(length) <= route.limit and end <= len(data):
                    body = data[start:end]
                    self._parser.feed_data(body)
            if self._complete and self._simple:
                return Request(method, path, query, fields, body, peer), route, end
        except (HttpParserError, HttpParserUpgrade):
            pass
        self._parser = HttpRequestParser(self)
        return None

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field."""
        name = name.lower()
        if name in self._fields or name in _ELSEWHERE:
            self._simple = False
        self._fields[name] = value.strip(b" \t")

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._complete = True
