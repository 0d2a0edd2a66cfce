"""Requests that come whole in one segment and are simple: read at once, and answered together. Pure.

What is taken here twisted.web would take with the same meaning; whatever is less simple is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gopush.net.http.request import Request
from gopush.net.http.routes import Route

MAX_HEAD_BYTES = 8 << 10
# Possessive: whatever a stranger sends is looked at once.
_HEAD = re.compile(
    rb"((GET|POST) (/[!->@-~]*+))(?:\?([!-~]*+))? HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t -~\x80-\xff]*+\r\n){0,100}+)\r\n"
)
_ELSEWHERE = frozenset((b"connection", b"upgrade", b"expect", b"transfer-encoding"))
_LENGTH = re.compile(rb"[0-9]{1,9}")


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
        fields: dict[bytes, bytes] = {}
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in fields or name in _ELSEWHERE:
                return None
            fields[name] = value.strip(b" \t")
        start = end = head.end()
        length = fields.get(b"content-length")
        if length is not None:
            if not _LENGTH.fullmatch(length) or int(length) > route.limit:
                return None
            end += int(length)
            if end > len(data):
                return None
        return Request(method, path, query, fields, data[start:end], peer), route, end
